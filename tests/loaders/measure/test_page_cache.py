"""Dropping files from the page cache, and seeing that they are gone."""

import time
from pathlib import Path

import pytest

from refit_shard.loaders.measure.page_cache import cached_share, drop_from_cache


def written(folder: Path, count: int) -> list[Path]:
    """Files of a few pages."""
    files = [folder / f"{number}.tar" for number in range(count)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 50_000)
    return files


@pytest.mark.parametrize("count", [1, 5, 40])
def test_files_are_dropped_and_stay_as_they_are(tmp_path: Path, count: int) -> None:
    files = written(tmp_path, count)
    before = cached_share(files)
    for _ in range(50):  # the system may keep what was written a moment ago
        drop_from_cache(files)
        after = cached_share(files)
        if after != before:
            break
        time.sleep(0.1)
    if before is None or after is None:
        pytest.skip("this file system does not tell what is cached")
    assert before == 1.0
    assert after < before
    assert [path.read_bytes() for path in files] == [bytes([n]) * 50_000 for n in range(count)]


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    drop_from_cache([tmp_path / "empty"])
    assert cached_share([tmp_path / "empty"]) in (0.0, None)


def test_a_file_that_is_not_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        drop_from_cache([tmp_path / "gone.tar"])
