"""Samples as a training loop needs them: one read of the tar gives the JPEG and its labels.

Of the indexes only the places of the JPEGs are kept, 12 bytes a row. Nothing is mapped, so a long
run does not fill its memory with what it has read.
"""

import os
import resource
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import ShardError, explain
from refit_shard.shards_spec.fields import FIELD, is_whole_record, npy_dtype, npy_header, numpy_view
from refit_shard.shards_spec.forks import ForkLock
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.reader import ShardSet, open_index
from refit_shard.shards_spec.storage.folder import Folder

TAR_BLOCK = 512
_MOST_OPEN_TARS = 512


@dataclass(frozen=True)
class NpyLayout:
    """What every ``.npy`` member of a data set must be: these bytes, then one record."""

    dtype: np.dtype[np.void]
    header: bytes

    @classmethod
    def of(cls, manifest: Manifest) -> "NpyLayout":
        """Of a data set."""
        dtype = npy_dtype(manifest.fields)
        return cls(dtype, npy_header(dtype))

    @property
    def size(self) -> int:
        """Bytes of a member."""
        return len(self.header) + self.dtype.itemsize


class ByteFile(Protocol):
    """An open file: its size in bytes, and any of them."""

    def size(self) -> int:
        """Bytes in the file."""

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes`` bytes from ``offset``."""


class LocalFile:
    """A file that is read where asked, by many threads at once, and not mapped."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            with suppress(OSError):  # nothing was written
                os.close(self._descriptor)

    @property
    def descriptor(self) -> int:
        """The system's number of the open file; closed with this object."""
        return self._descriptor

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def is_deleted(self) -> bool:
        """Whether it has no name any more; a cache may have brought another one."""
        return os.fstat(self._descriptor).st_nlink == 0

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes`` bytes from ``offset``."""
        return os.pread(self._descriptor, nbytes, offset)


def open_tar(folder: Folder, name: str) -> ByteFile:
    """A tar, to be read where asked.

    Raises:
        ShardError: it is missing.
        OSError: it cannot be opened.
        StorageError: the store failed.
    """
    if folder.local is None:
        remote: ByteFile = folder.open(name)
        return remote
    try:
        return LocalFile(str(folder.local / name))
    except FileNotFoundError as error:
        raise ShardError(f"{folder.url}/{name}: missing") from error


def most_open_tars() -> int:
    """How many tars to hold open: a quarter of the files that a process may have, at most 512."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN_TARS if allowed < 0 else max(4, min(_MOST_OPEN_TARS, allowed // 4))


class OpenTars:
    """The tars that were read last, open. One that is dropped is closed once nobody reads it."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[ByteFile, int]] = OrderedDict()
        self._most = most_open_tars()
        self._lock = ForkLock()

    def get(self, folder: Folder, name: str) -> tuple[ByteFile, int]:
        """An open tar and its size in bytes.

        Raises:
            ShardError: it is missing.
            StorageError: it cannot be read.
        """
        try:
            return self._get(folder, name)
        except OSError as error:
            raise explain(error, f"{folder.url}/{name}") from error

    def _get(self, folder: Folder, name: str) -> tuple[ByteFile, int]:
        key = f"{folder.url}/{name}"
        with self._lock:
            found = self._open.get(key)
            if found is None or (isinstance(found[0], LocalFile) and found[0].is_deleted()):
                tar = open_tar(folder, name)
                found = self._open[key] = (tar, tar.size())
                if len(self._open) > self._most:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return found


@dataclass(frozen=True)
class Place:
    """Where a sample lies: ``size`` bytes from ``offset`` of an open tar, the JPEG before the rest.

    ``where``: the tar and the row, for an error.
    """

    tar: ByteFile
    offset: int
    jpeg_length: int
    size: int
    where: str


@dataclass(frozen=True)
class Stored:
    """One sample: its JPEG, and its labels as the bytes of a record of :class:`NpyLayout`."""

    jpeg: bytes
    record: bytes


class RecordReader:
    """Reads samples of a finished data set by their number, in the order of its shards.

    It may be used by many threads at once, and after a fork. ``tars`` may be shared with others.
    """

    def __init__(self, data_set: ShardSet, tars: OpenTars) -> None:
        self._set = data_set
        self.layout = NpyLayout.of(data_set.manifest)
        self._places: dict[int, tuple[NDArray[np.uint64], NDArray[np.uint32]]] = {}
        self._tars = tars

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Of the records."""
        return self.layout.dtype

    def _index(self, shard: int) -> pa.RecordBatch:
        manifest = self._set.manifest
        return open_index(self._set.folder, manifest.shards[shard], manifest.fields)

    def _places_in(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Offsets and lengths of the JPEGs of a shard."""
        found = self._places.get(shard)
        if found is None:
            index = self._index(shard)
            offsets, lengths = (
                numpy_view(FIELD[name], index.column(name)).copy()
                for name in ("jpg_offset", "jpg_length")
            )
            found = self._places[shard] = (offsets, lengths)
        return found

    def describe(self, index: int) -> str:
        """Where a sample lies, for an error: shard, key and offset as far as they can be read."""
        shard, row = self._set.locate(index)
        found = f"shard {self._set.manifest.shards[shard].name}, row {row}"
        with suppress(ShardError):
            table = self._index(shard)
            found += f", key {table['key'][row]}, offset {table['jpg_offset'][row]}"
        return found

    def place(self, index: int) -> Place:
        """Where one sample lies.

        Raises:
            ShardError: the tar is missing or cut short.
            StorageError: it cannot be opened.
        """
        shard, row = self._set.locate(index)
        offsets, lengths = self._places_in(shard)
        offset, length = int(offsets[row]), int(lengths[row])
        name = f"{self._set.manifest.shards[shard].name}.tar"
        tar, size = self._tars.get(self._set.folder, name)
        end = length + (-length % TAR_BLOCK) + TAR_BLOCK + self.layout.size
        where = f"{self._set.folder.url}/{name}: row {row}"
        if offset + end > size:
            raise ShardError(f"{where} ends at byte {offset + end} of {size}; the tar is cut short")
        return Place(tar, offset, length, end, where)

    def read(self, index: int) -> Stored:
        """One sample.

        Raises:
            ShardError: the tar is missing, cut short, or not what the index says; or the labels are
                damaged.
            StorageError: it cannot be read.
        """
        place = self.place(index)
        try:
            data = place.tar.read_at(place.size, place.offset)
        except OSError as error:
            raise explain(error, place.where) from error
        labels = place.size - self.layout.size
        record = data[labels + len(self.layout.header) :]
        if len(data) != place.size or not data.startswith(self.layout.header, labels):
            raise ShardError(f"{place.where}: no labels behind the JPEG; run refit-shard verify")
        if not is_whole_record(record):
            raise ShardError(
                f"{place.where}: the labels are damaged (crc32c); run refit-shard verify"
            )
        return Stored(data[: place.jpeg_length], record)
