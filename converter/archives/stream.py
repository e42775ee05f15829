"""A part of an open archive as a file that other libraries read."""

import io
from typing import Any

from refit_shard.converter.archives.members import read_range

# Of one read. A zip's directory is read at once: some four million members.
_MAX_READ = 512 << 20


class Stream(io.RawIOBase):
    """``size`` bytes of an archive from ``begin`` on, as a file. It ends where they end, and no
    read takes more than 512 MiB of memory.

    Args:
        file: the archive, open: ``read_at(count, offset)``.
        where: its path or URL, for errors.
        begin: the first byte.
        size: how many.

    Reading raises:
        OSError: more is asked for at once, or a place before the first byte.
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
            raise OSError("a place before the file's begin")
        self._at = base + offset
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        count = left if count is None or count < 0 else min(count, left)
        if count > _MAX_READ:
            raise OSError(f"{count} bytes would be read at once")
        begin = self._begin + self._at
        data = read_range(self._file, self._where, begin, count) if count else b""
        self._at += count
        return data
