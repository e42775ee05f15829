"""Measures the speed of the stream, and how long its threads wait for storage."""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import torch

from refit_shard.loaders.stream.batches import BatchMaker, Samples
from refit_shard.loaders.stream.workers import Made, Slice, batches_in_order


class TimedMaker(BatchMaker):
    """A batch maker that records when the drawing of each batch began and ended."""

    drawn: list[tuple[float, float]]

    def make(self, samples: Samples, images: torch.Tensor) -> Made:
        """Make a batch and record its times."""
        begin = time.perf_counter()
        made = super().make(samples, images)
        self.drawn.append((begin, time.perf_counter()))
        return made


@dataclass(frozen=True, kw_only=True)
class StreamSpeed:
    """One measurement of the stream.

    ``samples``: number received. ``cores``: CPU time of the whole process divided by elapsed time.
    ``waiting``: share of the time in which the drawing threads did not draw. The loop takes each
    batch at once, so they waited for reads in that time.
    """

    samples: int
    samples_per_second: float
    cores: float
    waiting: float


def waiting_share(
    drawn: Iterable[tuple[float, float]], begin: float, end: float, threads: int
) -> float:
    """The share of ``threads`` threads' time from ``begin`` to ``end`` that no interval of
    ``drawn`` covers; seconds of one clock.
    """
    drawing = sum(max(0.0, min(last, end) - max(first, begin)) for first, last in drawn)
    return max(0.0, 1 - drawing / (threads * (end - begin)))


def measure_stream(
    maker: TimedMaker,
    slices: Iterable[Slice],
    *,
    threads: int,
    seconds: float,
    warm_up: int,
    most: int,
) -> StreamSpeed:
    """Receive batches of endless ``slices``, drawn by ``threads`` threads, and measure the rate.

    After ``warm_up`` batches it measures for ``seconds`` or until ``most`` batches were received,
    at least one for each thread.

    Raises:
        RefitShardError: a batch cannot be made.
    """
    options = maker.options
    maker.drawn = []
    made = batches_in_order(
        maker,
        slices,
        batch_size=options.batch_size,
        workers=threads,
        prefetch=options.prefetch,
    )
    batches = samples = 0
    with closing(made):
        for _ in range(warm_up):
            next(made)
        begin, used = time.perf_counter(), time.process_time()
        end = begin
        while batches < most and end - begin < seconds:
            for _ in range(threads):  # they deliver in turns
                samples += int(next(made)[1].counts.sum())
            batches += threads
            end = time.perf_counter()
        used = time.process_time() - used
    elapsed = end - begin
    return StreamSpeed(
        samples=samples,
        samples_per_second=samples / elapsed,
        cores=used / elapsed,
        waiting=waiting_share(maker.drawn, begin, end, threads),
    )
