"""One stream, to the byte, on either pixel path and any number of threads."""

from pathlib import Path

import pytest

from tests.loaders.stream_digest import THREADS, digests, made_crops


@pytest.mark.parametrize(
    ("batches", "batch"), [(6, 8), pytest.param(1000, 64, marks=pytest.mark.slow)]
)
def test_a_stream_is_one_on_either_path_and_any_threads(
    batches: int, batch: int, tmp_path: Path
) -> None:
    found = dict(digests(made_crops(tmp_path), batches=batches, batch=batch))
    assert len(found) == 2 * len(THREADS)
    assert len(set(found.values())) == 1, found
