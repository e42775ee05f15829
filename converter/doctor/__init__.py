"""Checks of data before a build: labels, frames, layouts, and what would cure them."""
