"""The stream: positions become rows, rows become batches, in order, resumable anywhere."""
