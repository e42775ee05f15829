"""Archives as they were downloaded, tar and zip: what they hold, and frames read out of them."""
