"""The cache of remote shards on a node's disk, and its locks."""
