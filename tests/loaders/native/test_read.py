"""Reading samples of tars: what is read is what was built, and damage is named."""

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refit_shard import ShardSet
from refit_shard.loaders import native
from refit_shard.loaders.native import Code, Reader, interface
from refit_shard.shards_spec.errors import FrameError, RefitShardError, ShardError, StorageError
from refit_shard.shards_spec.records import ByteFile, LocalFile, NpyLayout, OpenTars, RecordReader
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
        records = RecordReader(self.shards, OpenTars())
        self.places, wrong = records.places(np.arange(len(self.shards)))
        assert not wrong
        self.reader = Reader([self.layout], ["key", "keypoints"])

    def read(
        self, tar: ByteFile | None = None, *, threads: int = 1
    ) -> tuple[native.Jpegs, NDArray[Any], list[int], list[int]]:
        """All samples, from the tar as it is now, by so many threads from the second one on."""
        places = replace(self.places, tars=[tar or LocalFile(str(self.tar))])
        count = len(self.shards)
        rows, which = np.zeros(count, self.reader.dtype), np.zeros(count, np.int64)
        got = self.reader.read(
            *(which, places, "t.tar: row {}".format, rows, np.arange(count)),
            threads=threads,
            patience=0,
        )
        return got.jpegs, rows, got.codes.tolist(), got.details.tolist()

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
    offset = int(made.places.offsets[3])
    end = offset + int(made.places.sizes[3])
    record = end - made.layout.dtype.itemsize
    labels = record - len(made.layout.header)
    for at, kind, said in (
        (offset + 900, FrameError, "crc32c differs from the index"),
        (labels + 20, ShardError, "no labels after the JPEG"),
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
    made.tar.write_bytes(data[: int(made.places.offsets[6]) + 100])
    error = outcome(made, 6)
    assert isinstance(error, ShardError)
    assert "ends after 100 bytes" in str(error)


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


class Together(Bytes):
    """One that answers seven reads when all are asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.barrier = threading.Barrier(7)

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Some of the bytes, once six others are asked for too."""
        self.barrier.wait(60)
        return super().read_at(nbytes, offset)


def test_a_store_is_asked_for_many_samples_at_a_time(made: Set) -> None:
    _, _, codes, _ = made.read(Together(made.tar.read_bytes()), threads=7)
    assert codes == [Code.OK] * 7


class Failing(Bytes):
    """A store that is gone."""

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """None of the bytes."""
        raise OSError(errno.EIO, f"{nbytes} bytes from {offset} are gone")


@pytest.mark.parametrize("threads", [1, 5])
def test_a_store_that_fails_says_where(made: Set, threads: int) -> None:
    with pytest.raises(StorageError, match=r"^t\.tar: row \d: \d+ bytes from \d+ are gone$"):
        made.read(Failing(made.tar.read_bytes()), threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_store_gives_the_same(made: Set, threads: int) -> None:
    """And what is damaged there is named too."""
    data = made.tar.read_bytes()
    jpegs, records, codes, _ = made.read(Bytes(data), threads=threads)
    assert codes == [Code.OK] * 7
    local = made.read()
    assert records.tobytes() == local[1].tobytes()
    assert [jpegs.data(row) for row in range(7)] == [local[0].data(row) for row in range(7)]
    short = Bytes(data[: int(made.places.offsets[6]) + 900])
    assert made.read(short)[2] == [Code.NO_LABELS if row == 6 else 0 for row in range(7)]


def test_a_failed_read_says_why(made: Set) -> None:
    """A folder in place of the tar."""
    _, _, codes, details = made.read(LocalFile(str(made.tar.parent)))
    assert codes == [Code.READ_FAILED] * 7
    error = native.failure(codes[0], details[0], "t.tar: row 0")
    assert isinstance(error, StorageError)
    assert str(error) == f"t.tar: row 0: {os.strerror(errno.EISDIR)}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("begin", -1), ("to", -1), ("length", -1), ("begin", 1), ("to", 1), ("length", 2**62)),
        *(("begin", 2**63 - 1), ("to", 2**63 - 1), ("begin", -(2**63))),
    ],
)
def test_no_span_leads_out_of_a_record_or_a_row(name: str, value: int) -> None:
    """The library itself refuses it, whatever Python may ask for."""
    data, row = np.zeros(4096, np.uint8), np.zeros(16, np.uint8)
    span = np.array([(0, 0, 16)], interface.SPAN)
    span[name] = value
    (read,) = reads = np.zeros(1, interface.READ)
    read["data"], read["row"] = interface.address(data), interface.address(row)
    read["header"], read["spans"] = read["data"], interface.address(span)
    read["length"], read["record_length"], read["row_length"] = 528, 16, 16
    read["span_count"], read["descriptor"] = 1, -1
    interface.library().refit_read(interface.address(reads), 1, 1, 0)
    assert reads["code"].tolist() == [Code.BAD_CALL]
