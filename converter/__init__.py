"""Images and SPIN annotations become shards: npz and frames, then a plan, crops, shards."""
