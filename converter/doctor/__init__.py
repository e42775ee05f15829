"""Checks labels, frames and folders before a build, and proposes repairs."""
