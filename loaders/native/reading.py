"""Reads samples from tars and checks them against their checksums."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.native.interface import (
    READ,
    SPAN,
    Bytes,
    Ints,
    address,
    library,
    slack,
)
from refit_shard.shards_spec.errors import explain
from refit_shard.shards_spec.records import ByteFile, LocalFile, NpyLayout, Places

# Reads in flight of one batch if storage is slow. No disk gets faster with more; a batch of 64
# waits twice for the latency of storage.
THREADS = 32
# Microseconds after which a read counts as slow. A read from the page cache takes some 15; at 500,
# a single thread still reads as fast as one core draws.
PATIENCE = 500


@dataclass(frozen=True)
class Jpegs:
    """JPEGs in memory: the i-th has ``lengths[i]`` bytes from ``memory[begins[i]]``.

    Each is followed by at least :func:`slack` bytes of other memory.
    """

    memory: Bytes
    begins: Ints
    lengths: Ints

    @classmethod
    def room_for(cls, sizes: Ints, lengths: Ints) -> "Jpegs":
        """New memory with ``sizes`` bytes and the slack for each JPEG."""
        room = sizes + slack()
        return cls(np.empty(int(room.sum()), np.uint8), np.cumsum(room) - room, lengths)

    @classmethod
    def of(cls, jpegs: Sequence[bytes]) -> "Jpegs":
        """Copies of the given JPEGs."""
        lengths = np.array([len(one) for one in jpegs], np.int64)
        made = cls.room_for(lengths, lengths)
        for number, data in enumerate(jpegs):
            made.put(number, data)
        return made

    def put(self, number: int, data: bytes) -> None:
        """Copy bytes to the place of a JPEG, and fill the rest of its room with zeros."""
        begin, end = self.begins[number], (*self.begins[1:], len(self.memory))[number]
        self.memory[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        self.memory[begin + len(data) : end] = 0

    def data(self, number: int) -> bytes:
        """A copy of a JPEG's bytes."""
        begin = self.begins[number]
        return self.memory[begin : begin + self.lengths[number]].tobytes()

    def select(self, chosen: Ints) -> "Jpegs":
        """The JPEGs with these indices, in the same memory."""
        return Jpegs(self.memory, self.begins[chosen], self.lengths[chosen])


@dataclass(frozen=True)
class Read:
    """JPEGs that were read, with the code and the detail of each, (n,)."""

    jpegs: Jpegs
    codes: NDArray[np.int32]
    details: Ints


class Reader:
    """Reads samples of datasets with the given layouts; may be used by many threads at once.

    Their labels are copied into rows of :attr:`dtype`, which has the given ``columns``. A column
    that a sample's layout does not have is left unchanged.
    """

    def __init__(self, layouts: Sequence[NpyLayout], columns: Sequence[str]) -> None:
        self.dtype = dtype = _row([layout.dtype for layout in layouts], columns)
        self._headers = [np.frombuffer(layout.header, np.uint8) for layout in layouts]
        self._spans = [_spans(layout.dtype, dtype) for layout in layouts]
        # The fields that are the same for all samples of a layout.
        self._common = np.zeros(len(layouts), READ)
        for common, layout, header, spans in zip(
            self._common, layouts, self._headers, self._spans, strict=True
        ):
            common["header"], common["header_length"] = address(header), len(header)
            common["spans"], common["span_count"] = address(spans), len(spans)
            common["record_length"], common["row_length"] = layout.dtype.itemsize, dtype.itemsize
            common["jpeg_crc_at"] = _place_of(layout.dtype, "jpg_crc32c")

    def read(
        self,
        which: Ints,
        places: Places,
        where: Callable[[int], str],
        rows: NDArray[np.void],
        at: Ints,
        *,
        threads: int = THREADS,
        patience: int = PATIENCE,
    ) -> Read:
        """Read samples and check them. The labels of the i-th are copied into ``rows[at[i]]``.

        ``which`` (n,): index of each sample's layout. ``where``: gives the name of a sample in
        errors. Local files are read by one thread until a read takes longer than ``patience``
        microseconds, from then on by ``threads`` threads. Other files are read by ``threads``
        threads from the beginning.

        Raises:
            StorageError: a store failed.
        """
        reads = self._common[which]
        jpegs = Jpegs.room_for(places.sizes, places.jpeg_lengths)
        reads["data"] = address(jpegs.memory) + jpegs.begins
        reads["row"] = self._rows(rows, at)
        reads["offset"], reads["length"] = places.offsets, places.sizes
        reads["jpeg_length"] = places.jpeg_lengths
        descriptors = [one.descriptor if isinstance(one, LocalFile) else -1 for one in places.tars]
        reads["descriptor"] = np.array(descriptors, np.int32)[places.tar]
        if -1 in descriptors:
            far = np.flatnonzero(reads["descriptor"] == -1).tolist()
            _fetch(jpegs, places, far, where, threads)
        library().refit_read(address(reads), len(reads), threads, patience)
        return Read(jpegs, reads["code"], reads["detail"])

    def _rows(self, rows: NDArray[np.void], at: Ints) -> NDArray[np.uint64]:
        """The addresses of the rows ``at``."""
        if rows.dtype != self.dtype or not rows.flags.c_contiguous:
            raise ValueError(f"rows must hold {self.dtype}")
        if len(at) and not 0 <= at.min() <= at.max() < len(rows):
            raise ValueError("at must be indices of rows")
        return (address(rows) + at * self.dtype.itemsize).astype(np.uint64)


def _place_of(dtype: np.dtype[np.void], name: str) -> int:
    """The offset of a column in bytes."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def _row(records: Sequence[np.dtype[np.void]], columns: Sequence[str]) -> np.dtype[np.void]:
    """A dtype with these columns, each as wide as in the widest of the records."""
    sizes = [
        max((one[name] for one in records if name in (one.names or ())), key=lambda d: d.itemsize)
        for name in columns
    ]
    return np.dtype({"names": list(columns), "formats": sizes}, align=True)


def _spans(record: np.dtype[np.void], row: np.dtype[np.void]) -> NDArray[np.void]:
    """The spans of bytes to copy from a record to a row."""
    common = [name for name in row.names or () if name in (record.names or ())]
    made = [(_place_of(record, one), _place_of(row, one), record[one].itemsize) for one in common]
    return np.array(made, SPAN)


def _fetch(
    jpegs: Jpegs, places: Places, numbers: list[int], where: Callable[[int], str], threads: int
) -> None:
    """Read samples that are not in local files."""

    def fetch(number: int) -> None:
        tar: ByteFile = places.tars[places.tar[number]]
        try:
            data = tar.read_at(int(places.sizes[number]), int(places.offsets[number]))
        except OSError as error:
            raise explain(error, where(number)) from error
        jpegs.put(number, data)

    with ThreadPoolExecutor(min(threads, len(numbers))) as pool:
        for _ in pool.map(fetch, numbers):
            pass
