"""Reading samples of tars: what is read is what was built, and damage is named."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loaders import native
from loaders.native import Code, Layout
from shards_spec import ShardSet
from shards_spec.errors import FrameError, RefitShardError, ShardError, StorageError
from shards_spec.fields import npy_dtype, npy_header
from tests.small import own


class Set:
    """A built set of one shard, whose tar can be spoilt."""

    def __init__(self, folder: Path) -> None:
        made = own(folder, rows=7)
        assert made.build().code == 0
        self.shards = ShardSet.open(str(made.out))
        (entry,) = self.shards.manifest.shards
        self.tar = made.out / f"{entry.name}.tar"
        shard = self.shards.shard(0)
        self.offsets = shard.view("jpg_offset").astype(np.int64)
        self.lengths = shard.view("jpg_length").astype(np.int64)
        dtype = npy_dtype(self.shards.manifest.fields)
        self.layout = Layout(npy_header(dtype), dtype)

    def read(
        self, *, threads: int = 1, descriptor: int | None = None
    ) -> tuple[native.Jpegs, NDArray[Any], list[int], list[int]]:
        """All samples."""
        opened = os.open(self.tar, os.O_RDONLY)
        descriptors = np.full(
            len(self.offsets), opened if descriptor is None else descriptor, np.int32
        )
        try:
            jpegs, records, codes, details = native.read(
                self.layout, descriptors, self.offsets, self.lengths, threads=threads
            )
        finally:
            os.close(opened)
        return jpegs, records, codes.tolist(), details.tolist()

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
        sample, begin = made.shards[row], jpegs.begins[row]
        data = jpegs.memory[begin : begin + jpegs.lengths[row]]
        assert data.tobytes() == bytes(sample.jpeg)
        assert records["key"][row].decode() == sample["key"]
        np.testing.assert_array_equal(records["keypoints"][row], sample["keypoints"])


def outcome(made: Set, row: int) -> RefitShardError:
    """What is wrong with a row, while the others are read."""
    _, _, codes, details = made.read(threads=2)
    assert [code == Code.OK for code in codes] == [other != row for other in range(7)]
    return native.failure(codes[row], details[row])


def test_damage_is_named(made: Set) -> None:
    """A bit of the JPEG, of the member's header, of a label, of the labels' checksum."""
    labels = made.offsets[3] + made.lengths[3] + (-made.lengths[3] % 512) + 512
    record = labels + len(made.layout.header)
    end = record + made.layout.dtype.itemsize
    for at, kind, said in (
        (made.offsets[3] + 900, FrameError, "crc32c is not that of the index"),
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
    made.tar.write_bytes(data[: made.offsets[6] + 100])
    error = outcome(made, 6)
    assert isinstance(error, ShardError)
    assert "ends 100 bytes" in str(error)


def test_a_failed_read_says_why(made: Set) -> None:
    """A folder's descriptor, and one that is closed."""
    opened = os.open(made.tar.parent, os.O_RDONLY)
    for descriptor, number in ((opened, errno.EISDIR), (2**31 - 1, errno.EBADF)):
        _, _, codes, details = made.read(descriptor=descriptor)
        assert codes == [Code.READ_FAILED] * 7
        error = native.failure(codes[0], details[0])
        assert isinstance(error, StorageError)
        assert os.strerror(number) in str(error)
    os.close(opened)
