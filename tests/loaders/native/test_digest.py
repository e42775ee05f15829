"""The same bits on another processor."""

import pytest

from tests.loaders.native import digest


@pytest.mark.skipif(bool(digest.missing()), reason=digest.missing())
def test_aarch64_draws_the_same_bits() -> None:
    """As x86-64 does by either path, with any number of threads, and this checkout's library."""
    found = digest.digests()
    assert len(found) == len(digest.WAYS) + 1
    assert len(set(found.values())) == 1, found
