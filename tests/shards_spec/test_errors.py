"""The remedy that an error names fits the place."""

import errno
import os
from pathlib import Path

import pytest

from refit_shard.loaders.remote.cache import Cache
from refit_shard.shards_spec.errors import StorageError, explain
from refit_shard.shards_spec.storage.files import mistaken_for, write_file
from refit_shard.shards_spec.storage.folder import open_folder


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be made in ``tmp_path``, as on a file system that is mounted read-only."""
    assert tmp_path.is_dir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_place_is_named_by_what_chose_it(tmp_path: Path) -> None:
    place = tmp_path / "new"
    with pytest.raises(StorageError, match=r"read-only; choose another cache$"):
        Cache(place, 1000)
    with pytest.raises(StorageError, match=r"read-only; choose another --out$"):
        open_folder(place, "--out").create()
    with pytest.raises(StorageError, match=r"read-only; choose another --out$"):
        write_file(place / "x", b"", "--out")
    with pytest.raises(StorageError, match=r"read-only; choose another PW3D_ROOT$"):
        open_folder(tmp_path, "PW3D_ROOT").child("imageCrops").create()
    with pytest.raises(StorageError, match=r"read-only; choose another place$"):
        open_folder(place).create()


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_no_error_names_an_option_that_was_not_given(number: int) -> None:
    said = str(explain(OSError(number, os.strerror(number)), "/data/x"))
    assert said.startswith("/data/x: ")
    assert "--" not in said
    assert "{" not in said


def test_no_folder_for_temporary_files_is_no_missing_file() -> None:
    said = str(
        explain(FileNotFoundError(2, "No usable temporary directory found in ['/x']"), "s3:")
    )
    assert "set TMPDIR" in said


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"\xef\xbb\xbf<HTML>", "is a web page"),
        (b"<?xml version='1.0'?><Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04", None),
        (b"\x93NUMPY", None),
    ],
)
def test_what_a_download_left(head: bytes, said: str | None) -> None:
    found = mistaken_for(head)
    assert (found is None) == (said is None)
    assert (said or "") in (found or "")
