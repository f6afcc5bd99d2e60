"""Training of the embedded avatar model: procedural data, model training and evaluation."""
