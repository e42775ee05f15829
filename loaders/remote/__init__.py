"""Shards from afar: a node's folder of them, and its locks."""
