"""A part of an open archive as a file object for libraries that read files."""

import io
from typing import Any

from refit_shard.converter.archives.members import read_range

# Most bytes of one read. zipfile reads a zip's directory in one read: this allows four million
# members.
_MAX_READ = 512 << 20


class Stream(io.RawIOBase):
    """``size`` bytes of an archive from the offset ``begin``, as a file.

    Args:
        file: the opened archive, which has ``read_at(count, offset)``.
        where: path or URL of the archive, for errors.
        begin: offset of the first byte.
        size: number of bytes.

    Reading raises:
        OSError: a read of more than 512 MiB, or a position before the first byte.
        PassingError: the storage failed, or the archive is shorter than it was.
    """

    def __init__(self, file: Any, where: str, begin: int, size: int) -> None:
        super().__init__()
        self._file, self._where, self._begin, self._size = file, where, begin, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a position before the file's first byte")
        self._at = base + offset
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        count = left if count is None or count < 0 else min(count, left)
        if count > _MAX_READ:
            raise OSError(f"a read of {count} bytes, the limit is {_MAX_READ}")
        begin = self._begin + self._at
        data = read_range(self._file, self._where, begin, count) if count else b""
        self._at += count
        return data
