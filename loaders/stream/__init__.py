"""The stream: maps positions to samples and delivers them as batches, resumable at any batch."""
