"""Generated dataset trees, and measurements on them."""
