"""The fit: its loop, what happens around an epoch, its processes and its file."""
