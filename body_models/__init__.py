"""Reads SMPL's model files without unpickling, and computes SPIN's joints; needs only numpy."""
