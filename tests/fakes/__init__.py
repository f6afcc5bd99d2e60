"""Stand-ins for parts of the product that need a model."""
