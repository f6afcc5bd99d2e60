"""Drawn people: identities, faces that speak, and how they move."""
