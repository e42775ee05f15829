"""Labels of one's own for shards that stand: which rows get which, and the new shards."""
