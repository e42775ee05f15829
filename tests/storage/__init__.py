"""Tests against a real S3 server process over HTTP on loopback, and faults on the way to it."""
