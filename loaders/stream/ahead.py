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
# Looking for room means listing the cache, and it is full most of the time.
_FULL_SECONDS = 2.0
_STARVED_SECONDS = 300.0


def _slot(source: Source, shard: int) -> Slot:
    """The place in the cache for a dataset's shard."""
    entry = source.shards.manifest.shards[shard]
    return Slot(source.shards.folder, Path(source.read_from.folder.path), entry)


class ShardPrefetcher:
    """Downloads the shards of one iteration. Its threads start with the first slice."""

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
        # When each shard is needed next, and their order; what the newest slice reads and misses.
        self._following = np.zeros(len(self._slots))
        self._order: list[int] = []
        self._wanted: set[int] = set()
        self._missing: list[int] = []
        # Of the downloads.
        self._cached: set[int] = set()
        self._busy: set[int] = set()
        self._failed: dict[int, Exception] = {}
        self._not_before: dict[int, float] = {}
        self._full_until = 0.0
        self._full_since: dict[int, float] = {}
        self._watches: dict[int, Watch] = {}

    def once_held(self, slices: Iterable[Slice]) -> Iterator[Slice]:
        """The slices, each once its shards are in the cache and protected; ends where a shard
        cannot be downloaded.
        """
        for begin, end in slices:
            try:
                self._hold(begin, end)
            except Exception as error:  # the batches before it are to come first
                self._error = error
                return
            yield begin, end

    def check(self) -> None:
        """After the last batch: raise what ended the slices.

        Raises:
            RefitShardError: a shard cannot be had.
        """
        if self._error is not None:
            raise self._error

    def received(self) -> None:
        """The oldest slice's batch is finished: release its shards."""
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
        # Other ranks of this node may be as far back as the oldest batch that is not received.
        following = self._needs.following(self._flight[0][0] if self._flight else begin)
        order = np.argsort(following, kind="stable")[: np.isfinite(following).sum()].tolist()
        with self._changed:
            self._following, self._order = following, order
            self._wanted, self._missing = set(wanted), wanted
            for number in wanted:  # what failed before its shard was needed is tried again
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
        """Protect those shards of the newest slice that are in the cache; returns whether any is
        missing.
        """
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
        """The shard to download next: one that a slice waits for, else the one needed next."""
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
            except StorageError as error:  # raised where the shard is needed
                self._failed[number] = error
        return None

    def _next(self) -> tuple[int, float] | None:
        """A shard to download and the position that needs it; None at the end."""
        with self._changed:
            while not self._closed:
                number = self._choose()
                if number is not None:
                    self._busy.add(number)
                    return number, self._when(number)
                self._changed.wait(_PAUSE_SECONDS)
        return None

    def _when(self, number: int) -> float:
        """The position at which each shard is needed next; those of the newest slice come first."""
        return -1.0 if number in self._wanted else float(self._following[number])

    def _when_by_name(self, name: str) -> float:
        """The same by name, for eviction. An evicted shard must be looked for again."""
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
            except Exception as error:  # whatever it is, it is raised where the shard is needed
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
                f"{self._cache.path}: no room for {self._slots[number].name}, all else in it is in "
                f"use by other loaders; raise cache_bytes (now {self._cache.limit}) or give this "
                "one a folder of its own"
            )

    def _watch(self, number: int) -> None:
        """Check whether another process makes progress with a shard that a slice waits for."""
        slot = self._slots[number]
        watch = self._watches.setdefault(number, Watch(self._cache.lock_of(slot.name)))
        try:
            watch.check(self._cache.signs_of(slot))
        except StorageError as error:
            self._failed[number] = error
            del self._watches[number]  # asked for again, it is waited for again
