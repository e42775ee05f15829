"""System calls that some file systems (network, FUSE) do not support.

An errno that means "not supported" according to the manual page is distinguished from a failure;
only failures raise an error. A missing safeguard is logged, once for each folder.
"""

import errno
import fcntl
import logging
import os
from pathlib import Path

# Linux has one number for ENOTSUP and EOPNOTSUPP, other systems two.
_NOT_THERE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_NO_LOCKS = _NOT_THERE | {errno.ENOLCK, errno.EINVAL}
_NO_SYNC = _NOT_THERE | {errno.EINVAL}
# Some file systems require that a folder is opened for writing, which is impossible; others do not
# allow to open it at all.
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_NO_GROWING = _NOT_THERE | {errno.EINVAL, errno.EPERM}

_log = logging.getLogger("refit_shard")
_told: set[str] = set()


def warn_once(place: str, line: str) -> None:
    """Log a warning about a file or folder, unless this process has logged one for it."""
    if place not in _told:
        _told.add(place)
        _log.warning("%s: %s", place, line)


def lock(descriptor: int, how: int) -> bool:
    """Take a ``flock``; False if the file system has no locks.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock cannot be taken.
    """
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def sync(descriptor: int, place: str) -> None:
    """fsync a file; logs a warning if the file system does not support that.

    Raises:
        OSError: the bytes did not reach the disk.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        warn_once(
            place,
            "this file system does not tell when a file is on the disk (fsync); if the machine "
            "crashes, run the same command again, which keeps only complete files",
        )


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that names of files survive a power cut; does nothing if the file system
    does not support that.

    Raises:
        OSError: the names did not reach the disk.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def reserve(descriptor: int, size: int, place: str) -> None:
    """Extend a new file to its final size, so that other processes count the space as used.

    Raises:
        OSError: the call failed although the file system supports it.
    """
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno not in _NO_GROWING:
            raise
        warn_once(
            place,
            "this file system cannot reserve space (ftruncate); several downloads at once may take "
            "more space than the limit for a while",
        )
