"""The runs that make the embedded model from nothing, in the order of `make embedded-model`."""
