"""Rows of finished sets for other readers: whole sets again, tars with JSON labels, Parquet."""
