"""Adds own labels to finished shards: which row gets which label, and the new shards."""
