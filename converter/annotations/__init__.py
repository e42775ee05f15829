"""Reads and checks a dataset's npz, and lists each dataset's peculiarities."""
