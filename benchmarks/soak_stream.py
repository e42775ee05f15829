"""The stream of :mod:`benchmarks.soak`: another process reads it while this one samples that
process.
"""

import re
import time
from collections.abc import Sequence
from ctypes import c_longlong
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.crops import Crops
from benchmarks.harness import descendants
from refit_shard import StreamingLoader, StreamOptions

Samples = dict[str, list[float]]

_COUNT = 120  # number of samples in a run
_LINES = ("memory_bytes", "open_files", "threads", "processes", "samples_per_second")


@dataclass(frozen=True)
class Trend:
    """A quantity's median, and its growth: robust slope times duration."""

    median: float
    growth: float


def trend(samples: Samples, name: str) -> Trend:
    """The trend of a quantity by Theil and Sen's slope, without the first fifth of the samples."""
    first = len(samples["seconds"]) // 5
    when = np.array(samples["seconds"][first:])
    values = np.array(samples[name][first:])
    one, two = np.triu_indices(len(when), 1)
    slopes = (values[two] - values[one]) / (when[two] - when[one])
    slope = float(np.median(slopes)) if len(slopes) else 0.0
    return Trend(float(np.median(values)), slope * float(when[-1] - when[0]))


def _read(crops: Crops, limit: int | None, received: Any, options: dict[str, Any]) -> None:
    """In a child process: read without end, or a number of batches; ``received`` counts samples."""
    sources = {"bedlam": (str(crops.shards), 1.0)}
    loader = StreamingLoader(sources, StreamOptions(occluders=str(crops.occluders), **options))
    batches = 0
    while True:
        for batch in loader:
            received.value += len(batch["imgname"])
            batches += 1
            if batches == limit:
                return


def _sample(processes: Sequence[int]) -> list[float]:
    """Memory (PSS), open files and threads of some processes together, and their number."""
    memory = files = threads = found = 0
    for process in processes:
        folder = Path(f"/proc/{process}")
        try:
            rollup = (folder / "smaps_rollup").read_text(encoding="utf-8")
            opened = sum(1 for _ in (folder / "fd").iterdir())
            status = (folder / "status").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended meanwhile
        kib = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        count = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
        if kib and count:
            memory += int(kib[1]) * 1024
            files += opened
            threads += int(count[1])
            found += 1
    return [memory, files, threads, found]


def soak_stream(
    crops: Crops, *, seconds: float, batches: int | None, batch: int, **options: Any
) -> Samples:
    """Read for a duration; returns the values of every quantity and ``seconds`` since the first
    batch.

    Raises:
        RuntimeError: the reading process died.
    """
    context = get_context("spawn")
    received: Any = context.Value(c_longlong, 0, lock=False)
    arguments = (crops, batches, received, {"batch_size": batch, **options})
    child = context.Process(target=_read, args=arguments, daemon=False)
    child.start()
    samples: Samples = {name: [] for name in ("seconds", *_LINES)}
    try:
        while child.is_alive() and not received.value:
            child.join(0.05)
        began = before = time.perf_counter()
        count = received.value
        while child.is_alive() and before - began < seconds:
            child.join(seconds / _COUNT)
            values = _sample([child.pid or 0, *descendants(child.pid or 0)])
            now, counted = time.perf_counter(), received.value
            if not child.is_alive():
                break
            rate = (counted - count) / (now - before)
            for name, value in zip(samples, [now - began, *values, rate], strict=True):
                samples[name].append(round(value, 2))
            before, count = now, counted
        if child.exitcode:
            raise RuntimeError(f"the reading process ended with {child.exitcode}")
    finally:
        child.terminate()
        child.join()
    return samples
