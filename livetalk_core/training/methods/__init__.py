"""Training methods: what a network sees, how it is judged; the loop around them is in `trainer`."""
