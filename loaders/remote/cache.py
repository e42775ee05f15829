"""The cache: a local folder of downloaded shards, shared by the processes of a node, with a limit.

Each dataset has a subfolder that is named by the hash of its manifest. A file is renamed into place
after its hash was checked against the manifest. Locks are the kernel's flocks, which end with their
process, so a killed process leaves only a temporary file, which another process deletes.
``.SHARD.lock`` is shared while a shard is in use, and exclusive while it is downloaded or deleted;
``.lock`` is exclusive while room is made. If the cache's file system has no locks, they are in a
local folder, and only the processes that see this folder share a subfolder of the cache. So no
process uses a shard that another may delete.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from refit_shard.loaders.remote.locks import (
    EXCLUSIVE,
    SHARED,
    AbandonedError,
    give_back,
    has_locks,
    locks_elsewhere,
    take,
    token_of,
    wait_for,
)
from refit_shard.shards_spec.errors import ShardError, StorageError, explain
from refit_shard.shards_spec.manifest import Manifest, ShardEntry
from refit_shard.shards_spec.names import TEMPORARY_SUFFIX
from refit_shard.shards_spec.storage.filesystem import reserve, warn_once
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.storage.paths import AnyPath, absolute, local_path

_ATTEMPTS = 3
_CHUNK = 8 << 20


class Fetched(Enum):
    """Result of fetching a shard: it is in the cache (THERE), another process downloads it (BUSY),
    or the cache is full (FULL).
    """

    THERE = auto()
    BUSY = auto()
    FULL = auto()


@dataclass(frozen=True)
class Slot:
    """One shard: the remote folder it is downloaded from, and its folder in the cache."""

    remote: Folder
    folder: Path
    entry: ShardEntry

    @property
    def name(self) -> str:
        """Name of the shard in the cache, folder/shard."""
        return f"{self.folder.name}/{self.entry.name}"

    @property
    def files(self) -> list[tuple[str, int, str]]:
        """Name, size in bytes and SHA-256 of each of the shard's files."""
        entry = self.entry
        return [
            (f"{entry.name}.tar", entry.tar_bytes, entry.tar_sha256),
            (f"{entry.name}.arrow", entry.arrow_bytes, entry.arrow_sha256),
        ]

    def is_whole(self) -> bool:
        """True if the shard is in the cache; its hash was checked before it was renamed into place.

        Raises:
            StorageError: the folder cannot be read.
        """
        try:
            return all((self.folder / name).stat().st_size == size for name, size, _ in self.files)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise explain(error, str(self.folder / self.entry.name)) from error


@dataclass
class _Held:
    """Files and disk space of a shard in the cache."""

    files: list[Path] = field(default_factory=list)
    size: int = 0
    temporary: list[Path] = field(default_factory=list)
    temporary_size: int = 0
    changed: float = 0.0


def _delete(path: Path) -> None:
    """Delete a file and free its disk space, also if a process still has it open."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


class Cache:
    """The cache in a local folder, with at most ``limit`` bytes of shards.

    Raises:
        StorageError: the folder cannot be created.
    """

    def __init__(self, path: AnyPath, limit: int) -> None:
        self.path = Path(absolute(str(local_path(path, "cache"))))
        self.limit = limit
        self._make(self.path)
        self._locks = self.path
        if not has_locks(self.path):
            self._locks = locks_elsewhere(self.path)
            self.path /= token_of(self._locks)
            self._make(self.path)
            warn_once(
                str(self.path.parent),
                "this file system has no locks (flock), so each machine has a separate cache "
                f"there, of cache_bytes each; this machine's is {self.path.name}",
            )

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, str(folder), "cache") from error

    def folder(self, manifest: Manifest) -> Folder:
        """The folder of a dataset's shards, created if needed.

        Raises:
            StorageError: it cannot be created.
        """
        digest = hashlib.sha256(manifest.to_json()).hexdigest()
        place = self.path / f"{manifest.dataset}-{digest[:16]}"
        self._make(place)
        self._make(self._locks / place.name)
        return open_folder(place, "cache")

    def lock_of(self, name: str) -> Path:
        """Path of a shard's lock, by the shard's name in the cache."""
        folder, shard = name.split("/")
        return self._locks / folder / f".{shard}.lock"

    def signs_of(self, slot: Slot) -> object:
        """Sizes and times of another process's partial files of a shard, to see its progress."""
        found = []
        for path in slot.folder.glob(f".{slot.entry.name}.*{TEMPORARY_SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                found.append((path.name, status.st_size, status.st_blocks, status.st_mtime_ns))
        return sorted(found)

    def hold(self, slot: Slot) -> int | None:
        """Protect a complete shard from eviction until :meth:`release`; None if it is not in the
        cache.
        """
        held = take(self.lock_of(slot.name), SHARED)
        if held is None:
            return None
        is_whole = False
        try:
            is_whole = slot.is_whole()
        finally:
            if not is_whole:
                give_back(held)
        return held if is_whole else None

    def release(self, held: int) -> None:
        """End the protection of a shard."""
        give_back(held)

    def fetch(
        self,
        slot: Slot,
        need: float,
        following: Callable[[str], float],
        is_stopped: Callable[[], bool],
    ) -> Fetched:
        """Download a shard unless it is in the cache; one process downloads it for all.

        To make room, unused shards are evicted whose next use is later than ``need``, the latest
        first. ``following`` gives each shard's next position by name, infinity if it is not needed.

        Raises:
            ShardError: its hash differs from the manifest's, also when downloaded again.
            StorageError: the shard cannot be read or written.
            AbandonedError: ``is_stopped`` returned True.
        """
        lock = take(self.lock_of(slot.name), EXCLUSIVE)
        if lock is None:
            return Fetched.BUSY
        try:
            for attempt in range(_ATTEMPTS):
                if slot.is_whole():
                    return Fetched.THERE
                try:
                    if not self._download(slot, need, following, is_stopped):
                        return Fetched.FULL
                except (ShardError, StorageError):
                    if attempt == _ATTEMPTS - 1:
                        raise
                except OSError as error:
                    raise explain(error, str(self.path)) from error
            return Fetched.THERE
        finally:
            give_back(lock)

    def _download(
        self,
        slot: Slot,
        need: float,
        following: Callable[[str], float],
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Download a shard while holding its lock; False if there is no room.

        Either all of its files appear in the cache or none.
        """
        local = open_folder(slot.folder, "cache")
        size = sum(size for _, size, _ in slot.files)
        with ExitStack() as files:
            with self._alone(is_stopped):
                held = self._held()
                left = held.pop(slot.name, _Held())  # files left by a killed process
                for path in (*left.files, *left.temporary):
                    _delete(path)
                if not self._make_room(size, held, need, following):
                    return False
                streams = [files.enter_context(local.publish(name)) for name, _, _ in slot.files]
                for stream, (_, room, _) in zip(streams, slot.files, strict=True):
                    reserve(stream.fileno(), room, str(self.path))  # so that others count it
            for stream, (name, room, sha256) in zip(streams, slot.files, strict=True):
                _copy(slot.remote, name, stream, room, sha256, is_stopped)
            with self._alone(is_stopped):  # so that no process counts while names change
                files.close()
        return True

    @contextmanager
    def _alone(self, is_stopped: Callable[[], bool]) -> Iterator[None]:
        lock = wait_for(self._locks / ".lock", is_stopped)
        try:
            yield
        finally:
            give_back(lock)

    def _held(self) -> dict[str, _Held]:
        """The shards in the cache by name; files that the cache did not create are ignored."""
        found: dict[str, _Held] = {}
        for path in self._locks.glob("*/.*.lock"):
            shard = path.name[1:].removesuffix(".lock")
            found[f"{path.parent.name}/{shard}"] = _Held()
        for path in self.path.glob("*/*"):
            is_temporary = path.name.endswith(TEMPORARY_SUFFIX)
            shard = path.name.removeprefix("." if is_temporary else "").split(".")[0]
            held = found.get(f"{path.parent.name}/{shard}")
            if held is None or not (is_temporary or path.suffix in (".tar", ".arrow")):
                continue
            try:
                status = path.stat()
            except OSError as error:  # a download that has just failed
                if error.errno in (errno.ENOENT, errno.ESTALE):
                    continue
                raise
            if is_temporary:
                held.temporary.append(path)
                held.temporary_size += status.st_size
            else:
                held.files.append(path)
                held.size += status.st_size
            held.changed = max(held.changed, status.st_mtime)
        return found

    def _make_room(
        self, size: int, held: dict[str, _Held], need: float, following: Callable[[str], float]
    ) -> bool:
        """Delete unfinished downloads of killed processes, then evict shards, until ``size`` bytes
        are free.
        """
        for name, one in held.items():
            if one.temporary and self._delete_unused(name, one.temporary):
                one.temporary_size = 0
        taken = sum(one.size + one.temporary_size for one in held.values())
        missing = size + taken - self.limit
        when = {name: following(name) for name, one in held.items() if one.files}
        later = [name for name in when if when[name] > need]
        if sum(held[name].size for name in later) < missing:
            return False
        for name in sorted(later, key=lambda name: (-when[name], held[name].changed)):
            if missing <= 0:
                break
            if self._delete_unused(name, held[name].files):
                missing -= held[name].size
        return missing <= 0

    def _delete_unused(self, name: str, files: list[Path]) -> bool:
        """Delete files of a shard unless it is in use or being downloaded; True if deleted."""
        lock = take(self.lock_of(name), EXCLUSIVE)
        if lock is None:
            return False
        try:
            for path in files:
                _delete(path)
        finally:
            give_back(lock)
        return True


def _copy(
    remote: Folder,
    name: str,
    target: BinaryIO,
    size: int,
    sha256: str,
    is_stopped: Callable[[], bool],
) -> None:
    """Download a file of a shard and check its size and hash against the manifest's.

    Raises:
        ShardError: the size or the hash differs.
        StorageError: the file cannot be read.
        AbandonedError: ``is_stopped`` returned True.
    """
    digest, count = hashlib.sha256(), 0
    with remote.open(name) as file:
        while chunk := file.read(_CHUNK):
            if is_stopped():
                raise AbandonedError
            digest.update(chunk)
            count += len(chunk)
            if count <= size:
                target.write(chunk)
    if (count, digest.hexdigest()) != (size, sha256):
        raise ShardError(
            f"{remote.url}/{name}: {count} bytes with SHA-256 {digest.hexdigest()}, the manifest "
            f"states {size} with {sha256}; upload the shard again, or build it again"
        )
