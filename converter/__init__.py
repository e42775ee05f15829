"""From images and SPIN annotations to shards: read the npz, plan, cut crops, write shards."""
