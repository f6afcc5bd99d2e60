"""The one loop that trains: ranks, precision, updates, averages, checkpoints, metrics."""
