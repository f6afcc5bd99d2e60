"""What this machine is, what it can run and how fast: for `livetalk doctor` and `livetalk bench`."""
