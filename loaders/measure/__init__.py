"""Speed of the stream on this machine: what ``refit-shard bench`` and the benchmarks share."""
