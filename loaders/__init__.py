"""Loads shards as batches: a deterministic stream of samples that mixes datasets."""
