"""Lists tar and zip archives as they were downloaded, and reads frames from them."""
