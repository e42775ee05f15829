"""Paths as users give them: text, Path, bytes, ``~``, ``file://``, names that are not UTF-8."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from refit_shard import ShardSet
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.reader import find_data_sets
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.storage.paths import absolute, local_path, location
from refit_shard.shards_spec.verify import verify
from tests.small import Own, own

NO_TEXT = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Six rows in one shard."""
    tree = own(tmp_path_factory.mktemp("paths"))
    assert tree.build().code == 0
    return tree


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data/shards", "data/shards"),
        (Path("/data/shards"), "/data/shards"),
        (b"/data/caf\xe9", "/data/" + NO_TEXT),
        (Path(NO_TEXT), NO_TEXT),
        ("~/x", "/home/me/x"),
        (Path("~/x"), "/home/me/x"),
        ("a~/x", "a~/x"),
        ("./~", "./~"),
        ("file:///data/my%20frames", "/data/my frames"),
        ("file:///data/caf%E9", "/data/" + NO_TEXT),
        ("file://localhost/data", "/data"),
        ("FILE:/data", "/data"),
        ("s3://bucket/~/x", "s3://bucket/~/x"),
        ("gs://bucket", "gs://bucket"),
    ],
)
def test_what_is_meant(given: Any, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert location(given) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "--out is empty"),
        (None, "--out: must be a path or a URL, got None"),
        (3, "--out: must be a path or a URL, got 3"),
        (Path("s3://bucket/x"), "--out: 's3:/bucket/x': a URL has two slashes"),
        ("gs:/bucket", "a URL has two slashes"),
        ("file://server/x", "names another machine"),
        ("file://", "names no path"),
        ("file:///x?y", r"write \? as %3F"),
        ("~nobody-of-this-name/x", "the home folder is not known"),
        ("a\0b", "contains a zero byte"),
    ],
)
def test_what_is_no_path(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        location(given, "--out")


def test_a_url_is_no_place_on_this_machine() -> None:
    with pytest.raises(UsageError, match="cache: must be on this machine, got 's3://b/x'"):
        local_path("s3://b/x", "cache")


def test_a_current_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    assert absolute("/data") == "/data"
    assert absolute("s3://b/x") == "s3://b/x"
    for ask in (absolute, open_folder, ShardSet.open):
        with pytest.raises(UsageError, match="data: the current folder was deleted"):
            ask("data")


def test_shards_are_opened_by_a_path_of_any_kind(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bare = tmp_path / NO_TEXT / "own set"
    shutil.copytree(built.out, bare)
    escaped = f"file://{tmp_path}/caf%E9/own%20set"
    for path in (str(bare), bare, os.fsencode(bare), Path("~") / NO_TEXT / "own set", escaped):
        assert len(ShardSet.open(path)) == 6
        assert verify(path) == []
        assert find_data_sets(Path(os.fsdecode(location(path))).parent) == [str(bare)]


def test_a_folder_that_holds_a_name_that_is_not_text_is_listed(tmp_path: Path) -> None:
    (tmp_path / NO_TEXT).write_bytes(b"12")
    (tmp_path / ("d" + NO_TEXT)).mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "gone").symlink_to("nowhere")
    folder = open_folder(tmp_path)
    assert folder.names() == {NO_TEXT: 2}
    assert folder.folders() == [str(tmp_path / ("d" + NO_TEXT))]
    assert folder.read(NO_TEXT, limit=2) == b"12"
    folder.remove(NO_TEXT)
    assert folder.names() == {}
