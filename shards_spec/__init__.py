"""What a shard is: fields, geometry, files, and how to write and read them."""
