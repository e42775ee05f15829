"""Reads and writes folders and files, on this machine or in an object store."""
