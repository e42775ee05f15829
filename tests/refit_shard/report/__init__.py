"""Tests of ``refit-shard report``."""
