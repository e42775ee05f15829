"""One build at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards_spec.errors import UsageError, explain
from shards_spec.layout import LOCK
from shards_spec.storage import Folder


@contextmanager
def build_lock(folder: Folder) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends.

    An object store has no locks: there, builds into one prefix must be kept apart by the user.

    Raises:
        UsageError: another build holds it.
    """
    if folder.local is None:
        yield
        return
    path = folder.local / LOCK
    descriptor = _acquire(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, folder: Folder) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise explain(error, folder.url, folder.place) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(
                f"{folder.url}: another build is writing there; wait for it or choose another --out"
            ) from None
        # The holder before us may have unlinked the file between our open and our lock.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)
