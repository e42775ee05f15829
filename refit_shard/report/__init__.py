"""``refit-shard report``: one HTML page on the content of shards and its augmentation."""
