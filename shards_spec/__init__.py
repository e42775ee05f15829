"""What a shard is: fields, geometry, files on disk, and how to write and read them."""

from shards_spec.reader import Sample, Shard, ShardSet

__all__ = ["Sample", "Shard", "ShardSet"]
