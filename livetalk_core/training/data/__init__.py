"""Training data: talking videos or drawn people, encoded once into shards, and the batches drawn from them."""
