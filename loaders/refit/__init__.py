"""ReFit's trainer and its evaluation on shards."""
