"""``refit-shard report``: what shards hold, and how training will see it, on one page."""
