"""Measurements of ``refit-shard bench``: the stream with different numbers of threads, bare
decoding for comparison, and the stream from storage.

The first samples of the stream are read repeatedly, so they come from the page cache. To measure
storage, the files are dropped from the page cache first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from refit_shard.loaders.measure.decoding import decoding_rate
from refit_shard.loaders.measure.machine import LoadMeter, MachineLoad
from refit_shard.loaders.measure.page_cache import cached_share, drop_from_cache
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread
from refit_shard.loaders.measure.stream import StreamSpeed, TimedMaker, measure_stream
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.loaders.stream.source import Source
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.storage.paths import AnyPath
from refit_shard.shards_spec.values import hold, number, whole

_DECODED = 512  # crops that bare decoding goes through, in memory
_READ_BYTES = 2e9  # at most, of the samples that are read again and again
_NO_LIMIT = 1 << 62
_STILL_CACHED = 0.1  # above this share, files were not dropped


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Length of a benchmark: ``rounds`` of each measurement, at least ``seconds`` each.

    Raises:
        UsageError: a value is out of its bounds.
    """

    rounds: int = 3
    seconds: float = 2.0

    def __post_init__(self) -> None:
        hold(self, rounds=whole("rounds", self.rounds, 1, 1000))
        hold(self, seconds=number("seconds", self.seconds, 0.001, 3600))


@dataclass(frozen=True, kw_only=True)
class ThreadsSpeed:
    """The stream with a number of threads from the page cache, and bare decoding with as many.

    ``over_bare``: the first over the second, round by round. ``cores``, ``waiting``: see
    :class:`StreamSpeed`.
    """

    threads: int
    samples_per_second: Spread
    bare_decode: Spread
    over_bare: Spread
    cores: Spread
    waiting: Spread


@dataclass(frozen=True, kw_only=True)
class StorageSpeed:
    """The stream with all threads, its files dropped from the page cache before.

    ``samples``: the smallest number of samples of a measurement. ``still_cached``: share of the
    files that was in the page cache nevertheless; None if unknown.
    """

    samples_per_second: Spread
    waiting: Spread
    samples: int
    still_cached: float | None

    @property
    def dropped(self) -> bool:
        """True if hardly anything was in the page cache, as far as known."""
        return self.still_cached is None or self.still_cached <= _STILL_CACHED


@dataclass(frozen=True, kw_only=True)
class Speed:
    """All measurements. ``samples``: number of different samples, read repeatedly. ``occludes``:
    True if occluders were pasted.
    """

    threads: tuple[ThreadsSpeed, ...]
    storage: StorageSpeed
    load: MachineLoad
    samples: int
    occludes: bool

    @property
    def fastest(self) -> ThreadsSpeed:
        """The measurement with the highest rate."""
        return max(self.threads, key=lambda one: one.samples_per_second.median)


def thread_counts(cores: int) -> list[int]:
    """Numbers of threads to measure: 1, 2, 4 and so on, and the number of cores."""
    powers = [1 << power for power in range(cores.bit_length())]
    return sorted({*powers, cores})


def threads_for(rates: Mapping[int, float], wanted: float) -> tuple[int, bool]:
    """The smallest number of threads for ``wanted`` samples/s; False if it is extrapolated.

    ``rates``: samples/s by number of threads, ascending. Rates between these are interpolated
    linearly; above the largest, the rate is extrapolated in proportion to the threads.
    """
    below, rate_below = 0, 0.0
    for threads, rate in rates.items():
        if rate >= wanted:
            part = (wanted - rate_below) / (rate - rate_below)
            return below + math.ceil(part * (threads - below)), True
        below, rate_below = threads, rate
    return math.ceil(wanted * below / rate_below), False


class _Stream:
    """A stream of local shards, and the measurements of it.

    ``samples``: its first ones, which are read again and again.
    """

    def __init__(
        self, sources: Mapping[str, tuple[AnyPath, float]], options: StreamOptions, seconds: float
    ) -> None:
        self.cores = available_cores()
        self._seconds = seconds
        self._maker = TimedMaker(sources, options)
        self._tars = _local_tars(self._maker.sources)
        self._jpegs = self._first_jpegs(max(_DECODED, self.cores))
        self._batches = self._first_pass()
        filled = self._measure(self.cores, warm_up=0, most=self._batches)
        self._batches = max(1, min(self._batches, filled.samples // options.batch_size))
        self.samples = self._batches * options.batch_size

    @property
    def occludes(self) -> bool:
        """True if occluders are pasted."""
        return self._maker.occluders is not None

    def _first_jpegs(self, wanted: int) -> list[bytes]:
        """The JPEGs of the first samples."""
        read = self._maker.read(0, wanted)
        for error in read.bad.values():
            raise error
        return [read.got.jpegs.data(one) for one in range(wanted)]

    def _first_pass(self) -> int:
        """Number of batches until a source repeats or 2 GB are read, at least 1."""
        used = [one for one in self._maker.sources if one.ratio > 0]
        bytes_each = [
            one.ratio * sum(entry.tar_bytes for entry in one.shards.manifest.shards) / one.rows
            for one in used
        ]
        samples = min(_READ_BYTES / sum(bytes_each), *(one.rows / one.ratio for one in used))
        return max(1, int(samples // self._maker.options.batch_size))

    def _measure(self, threads: int, *, warm_up: int, most: int) -> StreamSpeed:
        size = self._maker.options.batch_size
        first_ones = [(one * size, (one + 1) * size) for one in range(self._batches)]
        return measure_stream(
            self._maker,
            cycle(first_ones),
            threads=threads,
            seconds=self._seconds,
            warm_up=warm_up,
            most=most,
        )

    def decode(self, threads: int) -> float:
        """Measure bare decoding, samples/s."""
        return decoding_rate(self._jpegs, threads=threads, seconds=self._seconds)

    def cached(self, threads: int) -> StreamSpeed:
        """Measure the stream from the page cache, after its memory was allocated in a warm-up."""
        in_flight = threads * self._maker.options.prefetch + 2
        return self._measure(threads, warm_up=2 * in_flight, most=_NO_LIMIT)

    def stored(self) -> tuple[StreamSpeed, float | None]:
        """Measure the stream from storage; also the share that was still in the page cache."""
        drop_from_cache(self._tars)
        held = cached_share(self._tars)
        drop_from_cache(self._tars)
        return self._measure(self.cores, warm_up=0, most=self._batches), held


def _local_tars(sources: Sequence[Source]) -> list[Path]:
    """The tars of all sources that are drawn from."""
    found = []
    for source in sources:
        folder = source.shards.folder.local
        if folder is None:
            raise UsageError(
                f"{source.name}: {source.shards.folder.url} is not on this machine; bench measures "
                "shards in a folder"
            )
        if source.ratio > 0:
            found += [folder / f"{entry.name}.tar" for entry in source.shards.manifest.shards]
    return found


def measurements(rounds: int) -> int:
    """Number of measurements in :func:`measure_speed`, including the unmeasured round."""
    return (rounds + 1) * (2 * len(thread_counts(available_cores())) + 1)


def measure_speed(
    sources: Mapping[str, tuple[AnyPath, float]],
    options: StreamOptions,
    bench: BenchOptions,
    advance: Callable[[], None] = lambda: None,
) -> Speed:
    """Measure the stream of some sources with all numbers of threads, in turns.

    ``sources``: name to (folder of its shards, ratio). ``advance`` is called after each of the
    :func:`measurements`.

    Raises:
        UsageError: sources or options do not fit, or shards are not in folders of this machine.
        ShardError: a sample is damaged.
    """
    stream = _Stream(sources, options, bench.seconds)
    cases: dict[str, Callable[[], Any]] = {"stored": stream.stored}
    for threads in thread_counts(stream.cores):
        cases[f"cached {threads}"] = partial(stream.cached, threads)
        cases[f"decode {threads}"] = partial(stream.decode, threads)

    def counted(case: Callable[[], Any]) -> Any:
        found = case()
        advance()
        return found

    meter = LoadMeter()
    work = {name: partial(counted, case) for name, case in cases.items()}
    measured = interleaved(work, bench.rounds)
    return Speed(
        threads=tuple(
            _threads_speed(threads, measured[f"cached {threads}"], measured[f"decode {threads}"])
            for threads in thread_counts(stream.cores)
        ),
        storage=_storage_speed(measured["stored"]),
        load=meter.read(),
        samples=stream.samples,
        occludes=stream.occludes,
    )


def _threads_speed(
    threads: int, cached: Sequence[StreamSpeed], decoded: Sequence[float]
) -> ThreadsSpeed:
    rates = [one.samples_per_second for one in cached]
    return ThreadsSpeed(
        threads=threads,
        samples_per_second=spread(rates),
        bare_decode=spread(decoded),
        over_bare=ratios(rates, decoded),
        cores=spread([one.cores for one in cached]),
        waiting=spread([one.waiting for one in cached]),
    )


def _storage_speed(stored: Sequence[tuple[StreamSpeed, float | None]]) -> StorageSpeed:
    held = [share for _, share in stored if share is not None]
    return StorageSpeed(
        samples_per_second=spread([one.samples_per_second for one, _ in stored]),
        waiting=spread([one.waiting for one, _ in stored]),
        samples=min(one.samples for one, _ in stored),
        still_cached=max(held, default=None),
    )
