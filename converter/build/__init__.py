"""The build: a plan, its shards, and their publication."""
