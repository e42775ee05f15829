"""Reads the input of a build, and distinguishes a bad file from storage that fails.

A fault of the file itself (it is missing, is a folder, may not be read, is too large) is a
:class:`FrameError`: its rows go to quarantine. Every other read error (EIO, ESTALE, ETIMEDOUT,
EMFILE, ENOMEM, …) says nothing about the file. The read is repeated; if it fails again, a
:class:`PassingError` is raised: the shard fails, and no row is lost.
"""

import errno
import io
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from refit_shard.shards_spec.errors import FrameError, PassingError, ShardError, StorageError
from refit_shard.shards_spec.storage.files import open_file
from refit_shard.shards_spec.storage.folder import Folder

MAX_FILE_BYTES = 512 << 20
# Seconds to wait before each further try.
PAUSES = (0.2, 0.8)
_LEAST_READ = 64 << 10

# Errors of open() that are faults of the file itself. The texts are stored in the quarantine and
# must be the same everywhere: those of operating systems differ, and contain paths.
_OF_THE_FILE = {
    errno.ENOENT: ("missing", "no such file"),
    errno.ENOTDIR: ("missing", "a part of the path is a file, not a folder"),
    errno.EISDIR: ("unreadable", "not a regular file"),
    errno.EACCES: ("unreadable", "permission denied"),
    errno.EPERM: ("unreadable", "permission denied"),
    errno.ELOOP: ("unreadable", "too many symbolic links"),
    errno.ENAMETOOLONG: ("unreadable", "the name is too long"),
}

T = TypeVar("T")
# Called with a file's size before its memory is allocated; it may wait until there is room.
Room = Callable[[int], object]


def patiently(do: Callable[[], T], where: str) -> T:
    """The result of ``do``, which is called again after short pauses if storage or memory fails.

    Raises:
        OSError: a fault of the file itself; it is not tried again.
        PassingError: the last try failed too; ``where`` names the file.
    """
    for pause in (*PAUSES, None):
        try:
            return do()
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in _OF_THE_FILE:
                raise
            if pause is None:
                raise _passing(where, error) from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def _passing(where: str, error: OSError | MemoryError) -> PassingError:
    said = "not enough memory"
    if isinstance(error, OSError):
        said = error.strerror or str(error)
    return PassingError(
        f"{where}: {said}, also when tried again; the file itself may be fine: check the machine "
        "and its storage, then run the same command again"
    )


def no_limit(_size: int) -> None:
    """A :data:`Room` that never waits."""


def read_frame(root: Folder, path: str, room: Room = no_limit) -> bytes:
    """The bytes of a frame's file.

    Raises:
        FrameError: missing, empty, too large, or not readable.
        PassingError: the storage failed, which says nothing about the frame.
    """
    read = _read_remote if root.local is None else _read_local
    data = read(root, path, room)
    if not data:
        raise FrameError("empty", "zero bytes")
    return data


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise FrameError("too_large", f"{size} bytes, the limit is {MAX_FILE_BYTES}")


def _read_remote(root: Folder, path: str, room: Room) -> bytes:
    """The bytes of an object in a store. No retries: pyarrow's clients have retried before they
    raise an error.
    """
    try:
        with root.open(path) as file:
            size = file.size()
            _check_size(size)
            room(size)
            return bytes(file.read())
    except ShardError as error:
        raise FrameError("missing", "no such object") from error
    except StorageError as error:
        raise PassingError(str(error)) from error
    except ValueError as error:  # pyarrow does not accept the key
        raise FrameError("unreadable", "not a valid name in this store") from error


def _read_local(root: Folder, path: str, room: Room) -> bytes:
    # The path is UTF-8 in every locale, so that the result does not depend on the locale.
    place = os.fsencode(root.path) + b"/" + path.encode()
    where = f"{root.url.rstrip('/')}/{path}"
    try:
        return patiently(lambda: _read_file(place, root.path, room), where)
    except OSError as error:
        raise FrameError(*_OF_THE_FILE[error.errno or 0]) from error


def _read_file(place: bytes, root: str, room: Room) -> bytes:
    """All bytes of a regular file.

    Raises:
        FrameError: it is not a regular file, or too large.
        OSError: it cannot be opened or read, or reading gave fewer bytes than its size.
    """
    try:
        file = _open(place)
    except FileNotFoundError:
        _check_there(root)
        raise
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV) and not stat.S_ISREG(os.stat(place).st_mode):
            raise FrameError("unreadable", "not a regular file") from error  # a socket, a device
        raise
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise FrameError("unreadable", "not a regular file")
        _check_size(about.st_size)
        room(about.st_size)
        return _read_all(file, about.st_size)
    finally:
        os.close(file)


def _open(place: bytes) -> int:
    """Open a file for reading without blocking, as opening a FIFO would."""
    return os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _check_there(root: str) -> None:
    """Check that the root still exists. If it does not (an unmounted disk), that says nothing about
    its frames.

    Raises:
        OSError: EIO, after which the read is repeated: the root does not exist.
    """
    if not os.path.isdir(root):
        raise OSError(errno.EIO, f"{root} does not exist")


def _read_all(file: int, stated: int) -> bytes:
    """Read to the end of the file, which may have grown. One read may return only a part."""
    parts: list[bytes] = []
    size = 0
    while part := os.read(file, max(_LEAST_READ, stated - size)):
        parts.append(part)
        size += len(part)
        _check_size(size)
    if size < stated:
        raise OSError(errno.EIO, f"gave {size} of {stated} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _LocalFile(io.RawIOBase):
    """An open local file whose reads are repeated if storage fails, so that such a failure is not
    taken for damage of the content.
    """

    def __init__(self, file: int, path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = patiently(lambda: os.fstat(self._file).st_size, self._path)
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        count = patiently(lambda: os.preadv(self._file, [buffer], self._position), self._path)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):  # nothing was written
                os.close(self._file)
        super().close()


def _open_local(path: str) -> io.BufferedReader:
    """A local file, opened for reading.

    Raises:
        OSError: the file does not exist, is not a regular file, or may not be read.
        PassingError: its storage fails, now or while it is read.
    """
    file = patiently(lambda: _open(os.fsencode(path)), path)
    try:
        if not stat.S_ISREG(patiently(lambda: os.fstat(file), path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
    except BaseException:
        with suppress(OSError):
            os.close(file)
        raise
    return io.BufferedReader(_LocalFile(file, path), 1 << 16)


def open_source(path_or_url: str) -> io.BufferedReader | io.BufferedRandom:
    """A file, opened for reading by path or URL. An object is copied to a temporary file first.

    Raises:
        OSError: a local file does not exist or may not be read.
        PassingError: its storage fails, now or while it is read.
        ShardError, StorageError: as :func:`refit_shard.shards_spec.storage.files.open_file`.
    """
    if "://" in path_or_url:
        return open_file(path_or_url)
    return _open_local(path_or_url)


def open_patiently(folder: Folder, name: str) -> Any:
    """A file of a folder, opened for reading from its beginning to its end.

    Raises:
        ShardError: the file does not exist or may not be read.
        PassingError: its storage fails, now or while it is read.
    """
    where = f"{folder.url}/{name}"
    try:
        if folder.local is None:
            return folder.open(name)
        return _open_local(str(folder.local / name))
    except StorageError as error:
        raise PassingError(str(error)) from error
    except OSError as error:
        raise ShardError(f"{where}: {_OF_THE_FILE[error.errno or 0][1]}") from error
