"""The compiled library against references of its own."""
