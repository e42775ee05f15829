"""Locks between processes: the kernel's flocks, which are released when their process ends."""

import fcntl
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from refit_shard.shards_spec.errors import StorageError, explain
from refit_shard.shards_spec.storage.filesystem import lock
from refit_shard.shards_spec.storage.folder import open_folder

SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB

# Clients of object stores retry for some minutes, during which there is no progress.
_QUIET_SECONDS = 120.0
_HUNG_SECONDS = 600.0
_PAUSE_SECONDS = 0.02

_log = logging.getLogger(__name__)


class AbandonedError(Exception):
    """Raised in a thread whose result is no longer needed; users do not see it."""


def has_locks(folder: Path) -> bool:
    """True if the folder's file system has locks.

    Raises:
        StorageError: the folder cannot be read or written.
    """
    place = folder / ".lock"
    try:
        descriptor = _open(place)
        try:
            return lock(descriptor, SHARED)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    except OSError as error:
        raise explain(error, str(place)) from error


def locks_elsewhere(path: Path) -> Path:
    """A local folder for the locks of a cache whose file system has none.

    Raises:
        StorageError: it has no locks either, or belongs to another user.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    mine = Path(tempfile.gettempdir()) / f"refit-shard-locks-{os.getuid()}"
    try:
        mine.mkdir(mode=0o700, exist_ok=True)
        if mine.is_symlink() or mine.stat().st_uid != os.getuid():
            raise StorageError(f"{mine}: belongs to another user; set TMPDIR to your own folder")
        locks = mine / digest[:16]
        locks.mkdir(exist_ok=True)
    except OSError as error:
        raise explain(error, str(mine)) from error
    if not has_locks(locks):
        raise StorageError(
            f"{path}: its file system has no locks (flock), nor has that of {locks}; "
            "set cache= or TMPDIR to a folder on a local disk"
        )
    return locks


def token_of(locks: Path) -> str:
    """A name shared by all processes that see a folder of locks, and by no others.

    Raises:
        StorageError: it cannot be read or written.
    """
    place = locks / "token"
    held = wait_for(locks / ".lock", lambda: False)
    try:
        if not place.exists():
            open_folder(str(locks)).write(place.name, f"node-{secrets.token_hex(8)}".encode())
        return place.read_text()
    except OSError as error:
        raise explain(error, str(place)) from error
    finally:
        give_back(held)


def take(place: Path, how: int) -> int | None:
    """Take a lock; returns its descriptor, or None if another process holds it.

    Raises:
        StorageError: the lock file cannot be opened or locked.
    """
    try:
        descriptor = _open(place)
        try:
            if lock(descriptor, how):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise explain(error, str(place)) from error
    os.close(descriptor)
    raise StorageError(f"{place}: its file system has no locks any more")


def wait_for(place: Path, is_stopped: Callable[[], bool]) -> int:
    """Wait for an exclusive lock that others hold only briefly; returns its descriptor.

    Raises:
        StorageError: the lock cannot be taken, or another process does not release it.
        AbandonedError: ``is_stopped`` returned True.
    """
    watch = Watch(place)
    while (held := take(place, EXCLUSIVE)) is None:
        if is_stopped():
            raise AbandonedError
        watch.check()
        time.sleep(_PAUSE_SECONDS)
    return held


def give_back(descriptor: int) -> None:
    """Release a lock. Closing alone would not, if a forked process has the descriptor too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def holder_of(place: Path) -> str:
    """The process that holds a lock, as text; only processes of this machine have a number."""
    try:
        inode = place.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF
            if words[1] == "FLOCK" and words[5].split(":")[-1] == str(inode) and int(words[4]) > 0:
                return f"process {words[4]}"
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    return "another process"


class Watch:
    """Watches a lock that another process holds: warns if there is no progress, later raises."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._signs: object = None
        self._since = time.monotonic()
        self._warned = False

    def check(self, signs: object = None) -> None:
        """Call while waiting. ``signs``: any value that changes while the holder makes progress.

        Raises:
            StorageError: ``signs`` have not changed for ten minutes.
        """
        now = time.monotonic()
        if signs != self._signs:
            self._signs, self._since, self._warned = signs, now, False
        waited = now - self._since
        if waited > _HUNG_SECONDS:
            raise StorageError(
                f"{self._place}: {holder_of(self._place)} holds this lock without progress for "
                f"{waited:.0f} s; end that process if it is stopped or hangs, or give this loader "
                "another folder as cache="
            )
        if waited > _QUIET_SECONDS and not self._warned:
            self._warned = True
            _log.warning(
                "%s: %s holds this lock without progress for %.0f s; waiting up to %.0f s",
                *(self._place, holder_of(self._place), waited, _HUNG_SECONDS),
            )


def _open(place: Path) -> int:
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with suppress(OSError):  # so that cleaners of temporary folders do not delete it
        os.utime(descriptor)
    return descriptor
