"""Shards become batches: a stream that mixes data sets, deterministic to the sample."""
