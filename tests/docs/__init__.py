"""Tests of the documentation: links, code blocks, names, and the site."""
