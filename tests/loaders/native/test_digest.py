"""The same bits on another processor."""

import pytest

from refit_shard.loaders.native import has_avx2
from tests.loaders.native import digest


@pytest.mark.slow  # most of it is compiling; make aarch64 prints the values
@pytest.mark.skipif(bool(digest.missing()), reason=digest.missing())
def test_aarch64_draws_the_same_bits() -> None:
    """As x86-64 does by either path, with any number of threads, and this checkout's library."""
    found = digest.digests()
    if has_avx2():
        assert len(found) == len(digest.WAYS) + 1, "both paths were taken"
        assert "x86_64, AVX2, 3 threads" in found
    assert len(set(found.values())) == 1, found
