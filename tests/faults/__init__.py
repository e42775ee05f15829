"""Faults of a file system, at every call that a real build makes, through a preloaded library."""
