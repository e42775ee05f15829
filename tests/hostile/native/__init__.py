"""Searches for inputs that break the compiled library; see :mod:`tests.hostile.native.fuzz`."""
