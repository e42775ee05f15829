"""A lock that keeps two builds out of one folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from refit_shard.shards_spec.errors import StorageError, UsageError, explain
from refit_shard.shards_spec.names import LOCK
from refit_shard.shards_spec.storage.filesystem import lock, warn_once
from refit_shard.shards_spec.storage.folder import Folder

# Most times that another build may delete the lock file between our opening and locking it.
_TRIES = 100
_BUSY = "another build is writing there; wait for it or choose another --out"
_NO_LOCK = (
    "this file system has no locks (flock), so a second build in this folder would not be noticed; "
    "make sure that there is none"
)


@contextmanager
def build_lock(folder: Folder, busy: str = _BUSY) -> Iterator[None]:
    """Hold the folder's lock; it is released when the process ends, however it ends.

    Object stores and some network file systems have no locks. For such a file system a warning is
    logged: the user must not run two builds into one folder there.

    Args:
        folder: the dataset's folder.
        busy: the error message if another process holds the lock.

    Raises:
        UsageError: another process holds the lock.
        StorageError: the lock cannot be taken.
    """
    if folder.local is None:
        yield
        return
    path = folder.local / LOCK
    try:
        descriptor = _acquire(path, folder, busy)
    except OSError as error:
        raise explain(error, folder.url, folder.place) from error
    try:
        yield
    finally:
        with suppress(OSError):  # a lock file that stays does no harm
            path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(descriptor)


def _acquire(path: Path, folder: Folder, busy: str) -> int:
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                warn_once(folder.url, _NO_LOCK)
                return descriptor
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(f"{folder.url}: {busy}") from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise StorageError(
        f"{folder.url}: {path.name} is deleted as soon as it is created; check the storage"
    )


def _is_at(descriptor: int, path: Path) -> bool:
    """True if the open file still has its name: the previous holder of the lock may have deleted it
    between our opening and locking it.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
