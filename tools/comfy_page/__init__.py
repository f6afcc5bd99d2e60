"""Workflows in the page's own format, and their pictures."""
