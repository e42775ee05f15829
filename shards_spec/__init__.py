"""Defines shards: columns, geometry, manifest and files, and how to write, read and verify them."""
