"""The documentation: links, blocks, names, and the site."""
