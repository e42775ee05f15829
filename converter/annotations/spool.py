"""Holds labels until their shard is built: in memory up to 16 MB, else in a temporary file."""

import tempfile
import weakref
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.converter.reading import patiently
from refit_shard.shards_spec.errors import StorageError, explain

_IN_MEMORY_BYTES = 16 << 20


class Spool:
    """Records of one structured dtype, appended in order and read by number.

    More than 16 MB are stored in an unlinked temporary file in the folder TMPDIR, whose space is
    freed when this object is deleted.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype = dtype
        self.names = dtype.names or ()
        # Any, because on Python 3.10 a SpooledTemporaryFile is not an IO.
        self._file: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, _close, self._file)

    def append(self, records: NDArray[np.void]) -> None:
        """Append (n,) records.

        Raises:
            StorageError: there is no space.
        """
        try:
            self._file.write(records.data)
            self._file.flush()
        except OSError as error:
            raise explain(error, "the folder for temporary files (TMPDIR)", "TMPDIR") from error

    def take(self, rows: ArrayLike) -> NDArray[Any]:
        """The records (n,) with the numbers ``rows`` (n,) int. Neighbours are read together.

        Raises:
            StorageError: the file cannot be read.
        """
        wanted = np.asarray(rows, np.int64)
        cuts = np.flatnonzero(np.diff(wanted) != 1) + 1
        runs = np.split(wanted, cuts) if len(wanted) else []
        data = b"".join([self._read(int(run[0]), len(run)) for run in runs])
        return np.frombuffer(bytearray(data), self.dtype)

    def _read(self, first: int, count: int) -> bytes:
        def read() -> bytes:
            self._file.seek(first * self.dtype.itemsize)
            return bytes(self._file.read(count * self.dtype.itemsize))

        data = patiently(read, "a temporary file (TMPDIR)")
        if len(data) != count * self.dtype.itemsize:
            raise StorageError(
                "a temporary file (TMPDIR) is incomplete; run the same command again"
            )
        return data


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # closing writes buffered data, which may fail again
        file.close()
