"""Hostile shard tars: ``verify`` walks their members, the loader reads at the index's offsets."""

import contextlib
import dataclasses
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from refit_shard import ShardSet
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.records import OpenTars, RecordReader
from refit_shard.shards_spec.verify import verify_shard
from tests.hostile.batch import mutated, outcomes
from tests.small import own

STEM = "own-000000"


def parse(path: Path) -> None:
    """Replace a shard's tar, make all hashes right, and read it with all code that reads tars."""
    folder = path.parent.parent / "own"
    data = path.read_bytes()
    (folder / f"{STEM}.tar").write_bytes(data)
    found = ShardSet.open(str(folder))
    (shard,) = found.manifest.shards
    stated = dataclasses.replace(
        shard, tar_bytes=len(data), tar_sha256=hashlib.sha256(data).hexdigest()
    )
    reader = RecordReader(found, OpenTars())
    for row in range(len(found)):
        with contextlib.suppress(ShardError):
            reader.read(row)
    verdict = verify_shard(found.folder, found.manifest, stated, quick=False)
    if verdict.problem is not None:
        assert "\n" not in verdict.problem
        raise ShardError(verdict.problem)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that holds a dataset."""
    tree = own(tmp_path / "made", rows=4)
    assert tree.build().code == 0
    shutil.copytree(tree.out, tmp_path / "own")
    return tmp_path


def member(name: str, data: bytes = b"", **attributes: object) -> bytes:
    """One member of a tar with the given header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def hostile(whole: bytes) -> Iterator[bytes]:
    """Tars whose headers mislead readers."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        first = tar.next()
    assert first is not None
    rest = whole[512:]
    yield b""
    yield bytes(1 << 20)
    yield member("././@LongLink", b"x\0", type=b"L") * 20_000 + whole  # each names the next member
    yield member("pax", b"30 size=999999999999999999999\n", type=b"x") + whole
    yield member("pax", b"99999999999999 path=x\n", type=b"x") + whole
    yield member("pax", b"21 GNU.sparse.major=1\n21 GNU.sparse.minor=0\n", type=b"x") + whole
    for kind in (b"1", b"2", b"3", b"5", b"6", b"S", b"x", b"g", b"L", b"K", b"\0", b"z"):
        yield member(first.name, type=kind, size=first.size, linkname="/etc/passwd") + rest
    for size in (0, -1, 8**11 - 1, 2**62):
        yield member(first.name, size=size) + rest
    for name in ("../" + first.name, "/" + first.name, "\x1b[2J" + first.name):
        yield member(name, size=first.size) + rest


def test_headers_that_lead_astray_are_our_error(place: Path) -> None:
    whole = (place / "own" / f"{STEM}.tar").read_bytes()
    found = outcomes(__name__, whole, hostile(whole), place)
    assert set(found) <= {"ShardError", "read"}
    assert found.count("read") <= 2  # valid old forms of a plain file


def test_any_damage_is_read_or_our_error(place: Path) -> None:
    whole = (place / "own" / f"{STEM}.tar").read_bytes()
    assert set(outcomes(__name__, whole, mutated(whole, 300, head=520), place)) == {
        "read",
        "ShardError",
    }
