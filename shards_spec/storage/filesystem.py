"""System calls that a file system may lack: those of a network, or of a FUSE program.

An errno that means "not supported" according to the manual page is told from a failure, and only
failures raise. A guard that is missing is logged, once for each place.
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
# Some want a folder opened for writing, which none can be; others do not let it be opened at all.
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_NO_GROWING = _NOT_THERE | {errno.EINVAL, errno.EPERM}

_log = logging.getLogger("refit_shard")
_told: set[str] = set()


def warn_once(place: str, line: str) -> None:
    """Log a warning, unless this process has logged it for the same place."""
    if place not in _told:
        _told.add(place)
        _log.warning("%s: %s", place, line)


def lock(descriptor: int, how: int) -> bool:
    """Take a ``flock``; False where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be taken.
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
    """fsync a file; does nothing where the file system does not support it.

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
            "this file system does not say when a file is on its disk (fsync); should the machine "
            "go down, run the same command again, which keeps only what is whole",
        )


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that its names survive a power cut; does nothing where that is not
    supported.

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
        OSError: it failed for another reason than that the file system does not support it.
    """
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno not in _NO_GROWING:
            raise
        warn_once(
            place,
            "this file system reserves no room (ftruncate); several downloads at once may take "
            "more than the limit for a while",
        )
