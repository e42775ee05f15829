"""Hostile files: each parser returns a value or raises a RefitShardError, whatever it is given."""
