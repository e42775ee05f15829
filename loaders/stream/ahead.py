"""Downloads a stream's shards into the cache, ahead of the batches that need them.

Threads download shards in the order in which the stream needs them next, as far as the cache has
room. A slice of a batch goes to the workers only when all its shards are in the cache and protected
from eviction.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from refit_shard.loaders.remote.cache import Cache, Fetched, Slot
from refit_shard.loaders.remote.locks import AbandonedError, Watch
from refit_shard.loaders.stream.needs import Needs
from refit_shard.loaders.stream.source import Source
from refit_shard.loaders.stream.workers import Slice, check_process
from refit_shard.shards_spec.errors import StorageError

_DOWNLOADS = 4
_PAUSE_SECONDS = 0.2
# Pause after a full cache: looking for room lists the cache, which is full most of the time.
_FULL_SECONDS = 2.0
_STARVED_SECONDS = 300.0


def _slot(source: Source, shard: int) -> Slot:
    """The place in the cache for a dataset's shard."""
    entry = source.shards.manifest.shards[shard]
    return Slot(source.shards.folder, Path(source.read_from.folder.path), entry)


class ShardPrefetcher:
    """Prefetches the shards of one iteration; the threads start with the first slice."""

    def __init__(self, needs: Needs, cache: Cache) -> None:
        self._needs = needs
        self._cache = cache
        self._slots = [_slot(*needs.locate(number)) for number in range(len(needs.sizes))]
        self._numbers = {slot.name: number for number, slot in enumerate(self._slots)}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._process = os.getpid()
        self._error: Exception | None = None
        # Locks of the shards in use, how many slices use them, and the slices in flight.
        self._locks: dict[int, int] = {}
        self._users: Counter[int] = Counter()
        self._flight: deque[tuple[int, list[int]]] = deque()
        # Position at which each shard is needed next, and the shards in that order; the shards of
        # the newest slice, and those of them that are not in the cache.
        self._following = np.zeros(len(self._slots))
        self._order: list[int] = []
        self._wanted: set[int] = set()
        self._missing: list[int] = []
        # State of the downloads, by shard.
        self._cached: set[int] = set()
        self._busy: set[int] = set()
        self._failed: dict[int, Exception] = {}
        self._not_before: dict[int, float] = {}
        self._full_until = 0.0
        self._full_since: dict[int, float] = {}
        self._watches: dict[int, Watch] = {}

    def once_held(self, slices: Iterable[Slice]) -> Iterator[Slice]:
        """The slices, each when its shards are in the cache and protected from eviction; ends at a
        slice whose shards cannot be downloaded.
        """
        for begin, end in slices:
            try:
                self._hold(begin, end)
            except Exception as error:  # raised by check(), after the batches before it
                self._error = error
                return
            yield begin, end

    def check(self) -> None:
        """Raise the error that ended the slices, if any; called after the last batch.

        Raises:
            RefitShardError: a shard cannot be downloaded.
        """
        if self._error is not None:
            raise self._error

    def received(self) -> None:
        """Release the shards of the oldest slice, whose batch is finished."""
        _, numbers = self._flight.popleft()
        for number in numbers:
            self._users[number] -= 1
            if not self._users[number]:
                self._cache.release(self._locks.pop(number))

    def close(self) -> None:
        """End the threads and release all shards. A forked process has copies of the locks, and to
        release one would be to release the parent's: they are only closed.
        """
        if os.getpid() != self._process:
            while self._locks:
                os.close(self._locks.popitem()[1])
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for lock in self._locks.values():
            self._cache.release(lock)
        self._locks.clear()

    def _hold(self, begin: int, end: int) -> None:
        check_process(self._process)
        wanted = self._needs.of(begin, end).tolist()
        # Other ranks of this node may still be at the oldest batch that is not yet received.
        following = self._needs.following(self._flight[0][0] if self._flight else begin)
        order = np.argsort(following, kind="stable")[: np.isfinite(following).sum()].tolist()
        with self._changed:
            self._following, self._order = following, order
            self._wanted, self._missing = set(wanted), wanted
            # A download that failed before its shard was needed is tried again.
            for number in wanted:
                self._failed.pop(number, None)
            while self._miss():
                self._changed.notify_all()
                self._begin()
                self._changed.wait(_PAUSE_SECONDS)
            self._changed.notify_all()
        self._begin()
        self._users.update(wanted)
        self._flight.append((begin, wanted))

    def _begin(self) -> None:
        while len(self._threads) < _DOWNLOADS:
            thread = threading.Thread(target=self._run, name="refit-shard-download", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _miss(self) -> bool:
        """Protect the newest slice's shards that are in the cache; True if one is missing."""
        missing = []
        for number in self._missing:
            if number not in self._locks:
                lock = self._cache.hold(self._slots[number])
                if lock is not None:
                    self._locks[number] = lock
                    self._watches.pop(number, None)
                    continue
                if number in self._failed:
                    raise self._failed[number]
                self._cached.discard(number)  # it may have been deleted by another process
                missing.append(number)
        self._missing = missing
        return bool(missing)

    def _choose(self) -> int | None:
        """The shard to download next: one that a slice waits for, else the one needed soonest."""
        now = time.monotonic()
        ahead = self._order if now >= self._full_until else []
        for number in (*self._missing, *ahead):
            if number in self._cached or number in self._busy or number in self._failed:
                continue
            if self._not_before.get(number, 0.0) > now:
                continue
            try:
                if not self._slots[number].is_whole():
                    return number
                self._cached.add(number)
            except StorageError as error:  # raised when the shard is needed
                self._failed[number] = error
        return None

    def _next(self) -> tuple[int, float] | None:
        """A shard to download and the position at which it is needed; None after close()."""
        with self._changed:
            while not self._closed:
                number = self._choose()
                if number is not None:
                    self._busy.add(number)
                    return number, self._when(number)
                self._changed.wait(_PAUSE_SECONDS)
        return None

    def _when(self, number: int) -> float:
        """Position at which a shard is needed next; -1 for the shards of the newest slice."""
        return -1.0 if number in self._wanted else float(self._following[number])

    def _when_by_name(self, name: str) -> float:
        """The same by the shard's name, for eviction; forgets that the shard is in the cache."""
        number = self._numbers.get(name)
        if number is None:
            return float("inf")
        with self._changed:
            self._cached.discard(number)
            return self._when(number)

    def _run(self) -> None:
        while (chosen := self._next()) is not None:
            number, need = chosen
            fetched = None
            try:
                fetched = self._cache.fetch(
                    self._slots[number], need, self._when_by_name, lambda: self._closed
                )
            except AbandonedError:
                pass
            except Exception as error:  # any error is raised when the shard is needed
                self._failed[number] = error
            with self._changed:
                self._settle(number, fetched)
                self._changed.notify_all()

    def _settle(self, number: int, fetched: Fetched | None) -> None:
        """Record how a download ended."""
        now = time.monotonic()
        self._busy.discard(number)
        if fetched is Fetched.THERE:
            self._cached.add(number)
        if fetched in (Fetched.BUSY, Fetched.FULL):
            self._not_before[number] = now + _PAUSE_SECONDS
        if fetched is Fetched.BUSY and number in self._missing:
            self._watch(number)
        if fetched is not Fetched.FULL:
            self._full_since.pop(number, None)
            return
        self._full_until = now + _FULL_SECONDS
        if number not in self._missing:
            return
        if now - self._full_since.setdefault(number, now) > _STARVED_SECONDS:
            self._failed[number] = StorageError(
                f"{self._cache.path}: no room for {self._slots[number].name}, all other shards are "
                f"in use by other loaders; raise cache_bytes (now {self._cache.limit}) or give "
                "this loader another folder as cache="
            )

    def _watch(self, number: int) -> None:
        """Check whether another process makes progress with a shard that a slice waits for."""
        slot = self._slots[number]
        watch = self._watches.setdefault(number, Watch(self._cache.lock_of(slot.name)))
        try:
            watch.check(self._cache.signs_of(slot))
        except StorageError as error:
            self._failed[number] = error
            del self._watches[number]  # a new request begins to wait anew
