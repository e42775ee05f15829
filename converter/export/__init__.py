"""Exports chosen rows of finished datasets: as shards, tars with JSON labels, or Parquet."""
