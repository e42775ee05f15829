"""Tar and zip archives as they were downloaded: listing them, and reading frames from them."""
