"""Converts the annotations that datasets distribute to a SPIN npz: one module for each kind."""
