"""Reads untrusted npz files, without unpickling and with bounded memory; and writes npz files."""

import hashlib
import lzma
import os
import threading
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.reading import open_source, patiently
from refit_shard.shards_spec.errors import ShardError, SourceError
from refit_shard.shards_spec.storage.files import is_of_a_mac, refuse_mistaken
from refit_shard.shards_spec.storage.paths import AnyPath, location

MAX_ARRAY_BYTES = 16 << 30
# The date of every written member, so that the same columns give the same bytes: zip's first date.
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 8 << 20
_SLICE_BYTES = 4 << 20
_DAMAGE = (
    *(ValueError, OSError, EOFError, RuntimeError),  # RuntimeError: encrypted
    *(zipfile.BadZipFile, NotImplementedError, zlib.error, lzma.LZMAError),
    *(SyntaxError, tokenize.TokenError),  # numpy evaluates an array's header as a literal
)


@dataclass(frozen=True)
class Entry:
    """What an array's header states. ``columns_first``: True if the array is stored in Fortran
    order. ``header_bytes``: length of the header.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns_first: bool
    header_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=object))


def _read_header(stream: IO[bytes]) -> Entry:
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
        if version == (1, 0):
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, columns_first, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"npy format version {version}")
    return Entry(dtype, shape, columns_first and len(shape) > 1, stream.tell())


class Npz:
    """An open npz. ``entries``: what the arrays' headers state, by key. Arrays are read whole or in
    slices of rows, by one thread at a time. Files that macOS adds to an archive are ignored.

    Args:
        path: of the file, or its URL, of which a temporary copy is read.
        file: the opened file, if there is one already.
        where: name of ``file`` for errors.

    Raises:
        SourceError: the file is missing, is not an npz, or an array's header is damaged.
        StorageError: its storage failed, which says nothing about the npz.
    """

    def __init__(
        self, path: AnyPath, file: BinaryIO | None = None, where: str | None = None
    ) -> None:
        self.path = path = where or location(path, "npz")
        self.entries: dict[str, Entry] = {}
        with ExitStack() as stack:
            try:
                self._file = file or stack.enter_context(open_source(path))
                refuse_mistaken(self._file, path)
                self._zip = stack.enter_context(zipfile.ZipFile(self._file))
            except (FileNotFoundError, ShardError):
                raise SourceError(f"{path}: missing") from None
            except PermissionError as error:
                raise SourceError(f"{path}: permission denied; make it readable") from error
            except _DAMAGE as error:
                raise SourceError(
                    f"{path}: not an npz file ({error}); is the download complete? How to "
                    "make one of other files: docs/guides/own-data.md"
                ) from error
            for info in self._zip.infolist():
                if info.filename.endswith(".npy") and not is_of_a_mac(info.filename):
                    key = info.filename.removesuffix(".npy")
                    if key in self.entries:
                        raise SourceError(f"{path}: holds {key!r} twice; save it again")
                    self.entries[key] = self._entry(info)
            self._open = stack.pop_all()

    def _entry(self, info: zipfile.ZipInfo) -> Entry:
        try:
            with self._zip.open(info) as stream:
                entry = _read_header(stream)
        except _DAMAGE as error:
            raise SourceError(f"{self.path}: {info.filename}: damaged header ({error})") from error
        size = entry.dtype.itemsize
        for length in entry.shape:
            size *= length
        if not entry.dtype.hasobject and info.file_size - entry.header_bytes != size:
            raise SourceError(
                f"{self.path}: {info.filename}: header states {size} bytes of data, "
                f"the file holds {info.file_size - entry.header_bytes}"
            )
        return entry

    def read(self, key: str) -> NDArray[Any]:
        """One array, read whole.

        Raises:
            SourceError: the array holds Python objects, is damaged, or is larger than the limit.
        """
        self._check_readable(key)
        try:
            with self._zip.open(f"{key}.npy") as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        except _DAMAGE as error:
            raise self._damaged(key, error) from error
        return array

    def slices(self, key: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yields one array in slices of ``rows`` rows; the last one may be shorter.

        The checksum is compared when the last row is read. An array in Fortran order is read whole,
        because the values of a row are scattered over all of it.

        Raises:
            SourceError: as :meth:`read`.
        """
        self._check_readable(key)
        entry = self.entries[key]
        begins = range(0, entry.shape[0], rows)
        if entry.columns_first or not entry.row_bytes:
            whole = self.read(key)
            yield from (whole[begin : begin + rows] for begin in begins)
            return
        try:
            with self._zip.open(f"{key}.npy") as stream:
                stream.read(entry.header_bytes)
                for begin in begins:
                    shape = (min(rows, entry.shape[0] - begin), *entry.shape[1:])
                    yield np.ndarray(shape, entry.dtype, _exactly(stream, shape[0], entry))
        except _DAMAGE as error:
            raise self._damaged(key, error) from error

    def rows_at_a_time(self, keys: Iterable[str]) -> int:
        """The number of rows of these arrays that take a few MB together, at least one."""
        return max(1, _SLICE_BYTES // max(1, sum(self.entries[key].row_bytes for key in keys)))

    def _check_readable(self, key: str) -> None:
        entry = self.entries[key]
        if entry.dtype.hasobject:
            raise SourceError(
                f"{self.path}: {key!r} holds Python objects, which are not read, because "
                f"unpickling can run code; save it again as a plain array (np.array(list_of_{key}))"
            )
        size = entry.dtype.itemsize * int(np.prod(entry.shape, dtype=object))
        if size > MAX_ARRAY_BYTES:
            raise SourceError(
                f"{self.path}: {key!r} is {size} bytes, more than the {MAX_ARRAY_BYTES} allowed"
            )

    def _damaged(self, key: str, error: BaseException) -> SourceError:
        return SourceError(f"{self.path}: {key!r} is damaged ({error})")

    def hash_beside(self) -> Callable[[], str]:
        """Start hashing the file in a thread, which ends at the latest when the npz is closed.

        Returns a function that waits for the file's SHA-256 and returns it.
        """
        stop = threading.Event()
        beside = self._open.enter_context(ThreadPoolExecutor(1))
        self._open.callback(stop.set)
        return beside.submit(self._sha256, stop).result

    def _sha256(self, stop: threading.Event) -> str:
        digest, at, part = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
        while not stop.is_set() and (count := self._pread(part, at)):
            digest.update(part[:count])
            at += count
        return digest.hexdigest()

    def _pread(self, into: "memoryview[int]", at: int) -> int:
        return patiently(lambda: os.preadv(self._file.fileno(), [into], at), self.path)

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def _exactly(stream: IO[bytes], rows: int, entry: Entry) -> bytes:
    """The bytes of the next ``rows`` rows.

    Raises:
        ValueError: the stream ends before.
    """
    size = rows * entry.row_bytes
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"the data end {size - len(data)} bytes early")
    return data


def write_npz(stream: IO[bytes], columns: Mapping[str, Sequence[NDArray[Any]]]) -> None:
    """Write columns as an npz; the same columns give the same bytes. Each column is a sequence of
    parts, which are concatenated.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        for key, parts in columns.items():
            values = np.concatenate(parts)
            info = zipfile.ZipInfo(f"{key}.npy", _DATE)
            info.file_size = values.nbytes  # so that zipfile uses zip64 for a large member
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
