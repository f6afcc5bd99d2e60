"""One stream on several ranks: who computes what, the process groups, split attention and split VAE."""
