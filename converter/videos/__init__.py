"""Frames out of videos: those that an npz names, each under its name."""
