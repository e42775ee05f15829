"""Adds own labels to finished shards: matches the labels to rows, and writes new shards."""
