"""Training: data, methods and the loop for models of any size, the embedded model's own runs, and evaluation."""
