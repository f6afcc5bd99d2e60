"""Synthetic speech with exact phoneme times, and the mouth shapes that belong to it."""
