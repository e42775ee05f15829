"""Reading samples of tars: what is read is what was built, and damage is named."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refit_shard import ShardSet
from refit_shard.loaders import native
from refit_shard.loaders.native import Code
from refit_shard.shards_spec.errors import FrameError, RefitShardError, ShardError, StorageError
from refit_shard.shards_spec.records import LocalFile, NpyLayout, OpenTars, Place, RecordReader
from tests.small import own


class Set:
    """A built set of one shard, whose tar can be spoilt."""

    def __init__(self, folder: Path) -> None:
        made = own(folder, rows=7)
        assert made.build().code == 0
        self.shards = ShardSet.open(str(made.out))
        (entry,) = self.shards.manifest.shards
        self.tar = made.out / f"{entry.name}.tar"
        self.layout = NpyLayout.of(self.shards.manifest)
        reader = RecordReader(self.shards, OpenTars())
        self.places = [reader.place(row) for row in range(len(self.shards))]

    def read(
        self, *, threads: int = 1, places: list[Place] | None = None
    ) -> tuple[native.Jpegs, NDArray[Any], list[int], list[int]]:
        """All samples, from the tar as it is now."""
        found = places or [replace(one, tar=LocalFile(str(self.tar))) for one in self.places]
        got = native.read([self.layout], np.zeros(len(found), int), found, threads=threads)
        return got.jpegs, got.records[0], got.codes.tolist(), got.details.tolist()

    def spoil(self, at: int) -> None:
        """Flip a bit of the tar."""
        data = bytearray(self.tar.read_bytes())
        data[at] ^= 4
        self.tar.write_bytes(data)


@pytest.fixture
def made(tmp_path: Path) -> Set:
    """Seven samples."""
    return Set(tmp_path)


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_what_is_read_is_what_was_built(made: Set, threads: int) -> None:
    jpegs, records, codes, _ = made.read(threads=threads)
    assert codes == [Code.OK] * 7
    for row in range(7):
        sample = made.shards[row]
        assert jpegs.data(row) == bytes(sample.jpeg)
        assert records["key"][row].decode() == sample["key"]
        np.testing.assert_array_equal(records["keypoints"][row], sample["keypoints"])


def outcome(made: Set, row: int) -> RefitShardError:
    """What is wrong with a row, while the others are read."""
    _, _, codes, details = made.read(threads=2)
    assert [code == Code.OK for code in codes] == [other != row for other in range(7)]
    return native.failure(codes[row], details[row], "t.tar")


def test_damage_is_named(made: Set) -> None:
    """A bit of the JPEG, of the member's header, of a label, of the labels' checksum."""
    offset = made.places[3].offset
    end = offset + made.places[3].size
    record = end - made.layout.dtype.itemsize
    labels = record - len(made.layout.header)
    for at, kind, said in (
        (offset + 900, FrameError, "crc32c is not that of the index"),
        (labels + 20, ShardError, "no labels behind the JPEG"),
        (record + 50, ShardError, "the labels are damaged"),
        (end - 1, ShardError, "the labels are damaged"),
    ):
        made.spoil(at)
        error = outcome(made, 3)
        assert isinstance(error, kind)
        assert said in str(error)
        made.spoil(at)
    assert made.read()[2] == [Code.OK] * 7


def test_a_tar_that_ends_early_is_named(made: Set) -> None:
    data = made.tar.read_bytes()
    made.tar.write_bytes(data[: made.places[6].offset + 100])
    error = outcome(made, 6)
    assert isinstance(error, ShardError)
    assert "ends 100 bytes" in str(error)


class Bytes:
    """A file that is not this machine's."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data)

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Some of them."""
        return self.data[offset : offset + nbytes]


def test_a_store_gives_the_same(made: Set) -> None:
    """And what is damaged there is named too."""
    data = made.tar.read_bytes()
    places = [replace(one, tar=Bytes(data)) for one in made.places]
    jpegs, records, codes, _ = made.read(places=places)
    assert codes == [Code.OK] * 7
    local = made.read()
    assert records.tobytes() == local[1].tobytes()
    assert [jpegs.data(row) for row in range(7)] == [local[0].data(row) for row in range(7)]
    places[2] = replace(places[2], tar=Bytes(data[: places[2].offset + 900]))
    assert made.read(places=places)[2] == [Code.NO_LABELS if row == 2 else 0 for row in range(7)]


def test_a_failed_read_says_why(made: Set) -> None:
    """A folder in place of the tar."""
    places = [replace(one, tar=LocalFile(str(made.tar.parent))) for one in made.places]
    _, _, codes, details = made.read(places=places)
    assert codes == [Code.READ_FAILED] * 7
    error = native.failure(codes[0], details[0], "t.tar: row 0")
    assert isinstance(error, StorageError)
    assert str(error) == f"t.tar: row 0: {os.strerror(errno.EISDIR)}"
