"""Reads samples for a training loop, each JPEG with its labels in one read of the tar.

Of an index only the offsets and lengths of the JPEGs are kept, 12 bytes a row. Nothing is
memory-mapped, so a long run does not fill its memory with pages that it has read.
"""

import os
import resource
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import ShardError, explain
from refit_shard.shards_spec.fields import FIELD, is_whole_record, npy_dtype, npy_header, numpy_view
from refit_shard.shards_spec.forks import ForkLock
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.reader import ShardSet, open_index
from refit_shard.shards_spec.storage.folder import Folder

Ints = NDArray[np.int64]

TAR_BLOCK = 512
# Seconds between two looks at whether a tar was deleted. A look lets go of the interpreter's lock,
# which a busy main thread may not give back for 5 ms.
_LOOK_SECONDS = 5.0
_MOST_OPEN_TARS = 512


@dataclass(frozen=True)
class NpyLayout:
    """The layout of every ``.npy`` member of a dataset: a fixed header, then one record."""

    dtype: np.dtype[np.void]
    header: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> "NpyLayout":
        """The layout for a dataset's columns."""
        dtype = npy_dtype(manifest.fields)
        return cls(dtype, npy_header(dtype))

    @property
    def size(self) -> int:
        """Bytes of a ``.npy`` member."""
        return len(self.header) + self.dtype.itemsize


class ByteFile(Protocol):
    """An open file that can be read at any offset."""

    def size(self) -> int:
        """Bytes in the file."""

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes`` bytes from ``offset``."""


class LocalFile:
    """A local file that is read with ``pread``, by any number of threads, without a memory map."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            with suppress(OSError):  # the file was only read, so nothing is lost
                os.close(self._descriptor)

    @property
    def descriptor(self) -> int:
        """The file descriptor; it is closed when this object is deleted."""
        return self._descriptor

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def is_deleted(self) -> bool:
        """True if the file was unlinked; a cache may have downloaded it again under the
        same name.
        """
        return os.fstat(self._descriptor).st_nlink == 0

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes`` bytes from ``offset``."""
        return os.pread(self._descriptor, nbytes, offset)


def open_tar(folder: Folder, name: str) -> ByteFile:
    """A tar, opened for reads at any offset.

    Raises:
        ShardError: the tar is missing.
        OSError: the tar cannot be opened.
        StorageError: the object store failed.
    """
    if folder.local is None:
        remote: ByteFile = folder.open(name)
        return remote
    try:
        return LocalFile(str(folder.local / name))
    except FileNotFoundError as error:
        raise ShardError(f"{folder.url}/{name}: missing") from error


def most_open_tars() -> int:
    """How many tars may be open: a quarter of the process's limit of open files, at most 512."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN_TARS if allowed < 0 else max(4, min(_MOST_OPEN_TARS, allowed // 4))


class _OpenTar(NamedTuple):
    """``look_at``: when to look whether the file was deleted, as time.monotonic gives it."""

    file: ByteFile
    size: int
    look_at: float

    def is_deleted(self) -> bool:
        return isinstance(self.file, LocalFile) and self.file.is_deleted()


class OpenTars:
    """The most recently used tars, kept open. An evicted tar is closed when no thread reads it any
    longer. A tar that was deleted is noticed some seconds later, or at once with ``evicted``: True
    if a cache, which empties what it deletes, may delete tars.
    """

    def __init__(self, *, evicted: bool = False) -> None:
        self._look_seconds = 0.0 if evicted else _LOOK_SECONDS
        self._open: OrderedDict[str, _OpenTar] = OrderedDict()
        self._most = most_open_tars()
        self._lock = ForkLock()

    def get(self, folder: Folder, name: str) -> tuple[ByteFile, int]:
        """An open tar and its size in bytes.

        Raises:
            ShardError: the tar is missing.
            StorageError: the tar cannot be opened.
        """
        try:
            return self._get(folder, name)
        except OSError as error:
            raise explain(error, f"{folder.url}/{name}") from error

    def _get(self, folder: Folder, name: str) -> tuple[ByteFile, int]:
        key = f"{folder.url}/{name}"
        now = time.monotonic()
        with self._lock:
            found = self._open.get(key)
            if found is None or (found.look_at <= now and found.is_deleted()):
                tar = open_tar(folder, name)
                found = self._open[key] = _OpenTar(tar, tar.size(), now + self._look_seconds)
                if len(self._open) > self._most:
                    self._open.popitem(last=False)
            elif found.look_at <= now:
                self._open[key] = found._replace(look_at=now + self._look_seconds)
            self._open.move_to_end(key)
            return found.file, found.size


@dataclass(frozen=True)
class Places:
    """Where samples are stored in their tars: int64 arrays (n,).

    ``asked``: index of the sample in the request. ``tar``: index of its tar in ``tars``. A sample
    has ``sizes`` bytes from ``offsets`` on; the first ``jpeg_lengths`` bytes are the JPEG.
    """

    tars: list[ByteFile]
    asked: Ints
    tar: Ints
    offsets: Ints
    jpeg_lengths: Ints
    sizes: Ints

    @classmethod
    def joined(cls, parts: Sequence["Places"]) -> "Places":
        """The places of all parts, concatenated."""
        firsts = np.cumsum([0, *(len(part.tars) for part in parts[:-1])])
        return cls(
            [tar for part in parts for tar in part.tars],
            np.concatenate([part.asked for part in parts]),
            np.concatenate([part.tar + first for part, first in zip(parts, firsts, strict=True)]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.jpeg_lengths for part in parts]),
            np.concatenate([part.sizes for part in parts]),
        )


@dataclass(frozen=True)
class Stored:
    """One sample: its JPEG, and its labels as the bytes of a record; see :class:`NpyLayout`."""

    jpeg: bytes
    record: bytes


class RecordReader:
    """Finds and reads samples of a finished dataset by number, in the order of its shards.

    Thread-safe, also after a fork. ``tars`` may be shared with other readers.
    """

    def __init__(self, data_set: ShardSet, tars: OpenTars) -> None:
        self._set = data_set
        self.layout = NpyLayout.of(data_set.manifest)
        self._tars = tars
        shards = data_set.manifest.shards
        self._names = [f"{entry.name}.tar" for entry in shards]
        self._ends = np.cumsum([entry.rows for entry in shards], dtype=np.int64)
        # A shard's part is filled when the shard is first used; only then its pages are allocated.
        self._offsets = np.zeros(len(data_set), np.uint64)
        self._lengths = np.zeros(len(data_set), np.uint32)
        self._known: set[int] = set()

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The dtype of the records."""
        return self.layout.dtype

    def _index(self, shard: int) -> pa.RecordBatch:
        manifest = self._set.manifest
        return open_index(self._set.folder, manifest.shards[shard], manifest.fields)

    def _learn(self, shard: int) -> None:
        """Read the positions of a shard's JPEGs from its index."""
        index = self._index(shard)
        end = int(self._ends[shard])
        for name, noted in (("jpg_offset", self._offsets), ("jpg_length", self._lengths)):
            noted[end - index.num_rows : end] = numpy_view(FIELD[name], index.column(name))
        self._known.add(shard)

    def describe(self, index: int) -> str:
        """A text for errors that says where a sample is: shard and row and, if the index can be
        read, key and offset.
        """
        shard, row = self._set.locate(index)
        found = f"shard {self._set.manifest.shards[shard].name}, row {row}"
        with suppress(ShardError):
            table = self._index(shard)
            found += f", key {table['key'][row]}, offset {table['jpg_offset'][row]}"
        return found

    def where(self, index: int) -> str:
        """A text for errors with the tar and the row of a sample."""
        shard, row = self._set.locate(index)
        return f"{self._set.folder.url}/{self._names[shard]}: row {row}"

    def places(self, indices: Ints) -> tuple[Places, dict[int, ShardError]]:
        """Where the samples ``indices`` (n,) are stored; and, by position in ``indices``, the
        errors of those whose tar or index is missing, damaged or cut short.

        Raises:
            StorageError: a tar or an index cannot be opened.
        """
        shards: list[int] = np.searchsorted(self._ends, indices, side="right").tolist()
        opened, failed = self._open(shards)
        wrong = {number: failed[one] for number, one in enumerate(shards) if one in failed}
        asked = np.array([number for number in range(len(shards)) if number not in wrong], np.int64)
        slots = {shard: slot for slot, shard in enumerate(opened)}
        tar = np.array([slots[one] for one in shards if one in slots], np.int64)
        rows = indices[asked]
        offsets, lengths = self._offsets[rows], self._lengths[rows].astype(np.int64)
        sizes = lengths + -lengths % TAR_BLOCK + TAR_BLOCK + self.layout.size
        room = np.array([size for _, size in opened.values()], np.int64)[tar] - sizes
        whole = (room >= 0) & (offsets <= np.maximum(room, 0).astype(np.uint64))
        for number in np.flatnonzero(~whole).tolist():
            end, size = int(offsets[number]) + int(sizes[number]), int(room[number] + sizes[number])
            where = self.where(int(rows[number]))
            wrong[int(asked[number])] = ShardError(
                f"{where} ends at byte {end} of {size}; the tar is cut short"
            )
        tars = [one for one, _ in opened.values()]
        columns = (asked, tar, offsets.astype(np.int64), lengths, sizes)
        return Places(tars, *(column[whole] for column in columns)), wrong

    def _open(
        self, shards: Sequence[int]
    ) -> tuple[dict[int, tuple[ByteFile, int]], dict[int, ShardError]]:
        """The open tars of the shards with their sizes, and the errors of those that are missing or
        damaged.
        """
        opened, failed = {}, {}
        for shard in dict.fromkeys(shards):
            try:
                if shard not in self._known:
                    self._learn(shard)
                opened[shard] = self._tars.get(self._set.folder, self._names[shard])
            except ShardError as error:
                failed[shard] = error
        return opened, failed

    def read(self, index: int) -> Stored:
        """The sample with the number ``index``.

        Raises:
            ShardError: the tar is missing, cut short, or does not match the index; or the labels
                are damaged.
            StorageError: the tar cannot be read.
        """
        where = self.where(index)
        places, wrong = self.places(np.array([index]))
        for error in wrong.values():
            raise error
        (tar,), size = places.tars, int(places.sizes[0])
        try:
            data = tar.read_at(size, int(places.offsets[0]))
        except OSError as error:
            raise explain(error, where) from error
        labels = size - self.layout.size
        record = data[labels + len(self.layout.header) :]
        if len(data) != size or not data.startswith(self.layout.header, labels):
            raise ShardError(f"{where}: no labels after the JPEG; run refit-shard verify")
        if not is_whole_record(record):
            raise ShardError(f"{where}: the labels are damaged (crc32c); run refit-shard verify")
        return Stored(data[: int(places.jpeg_lengths[0])], record)
