"""Measures the stream's speed on storage with latency.

    python -m benchmarks.bench_late_stream

The loader runs with two workers, as in :mod:`benchmarks.bench_load`, on files in the page cache. A
library that is preloaded into a fresh process (``late_reads.cc``) delays each read by some
milliseconds. The delays take turns; each rate is divided by the rate without delay in the same
round.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.build_cases import process
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import machine, markdown_table, rates_over_first
from benchmarks.late_storage import READS, late_library
from benchmarks.load_cases import Amounts, Loading, loading_rate

PACKAGES = ("numpy", "torch")
TARGETS = {5: 0.9}


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run.

    ``delays``: delays of each read to measure besides none, ms. ``seconds``: the shortest duration
    of a measurement, after ``warm_up`` batches.
    """

    batch: int = 64
    workers: int = 2
    delays: tuple[int, ...] = (1, 5, 30)
    warm_up: int = 30
    seconds: float = 5.0
    rounds: int = 5


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    batch=4,
    delays=(5,),
    warm_up=1,
    seconds=0.0,
    rounds=1,
)


def late_rate(
    milliseconds: int, library: Path, case: Loading, crops: Crops, amounts: Amounts
) -> float:
    """Samples/s of the loader in a fresh process with delayed reads."""
    late = {"LD_PRELOAD": str(library), "LATE_MICROSECONDS": str(1000 * milliseconds)}
    with patch.dict(os.environ, late), process() as pool:
        return pool.submit(loading_rate, case, crops, amounts).result()


def measure_stream(crops: Crops, settings: Settings, cache: Path) -> dict[str, Any]:
    """Rates by delay of a read in milliseconds, and the ratio of each to the rate without delay."""
    library = late_library(cache, READS)
    amounts = Amounts(batch=settings.batch, warm_up=settings.warm_up, seconds=settings.seconds)
    case = Loading(image="uint8", cores=settings.workers)
    work = {
        str(delay): partial(late_rate, delay, library, case, crops, amounts)
        for delay in (0, *settings.delays)
    }
    return rates_over_first(work, settings.rounds)


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    crops = cached_crops(cache, settings)
    return {
        "benchmark": "bench_late_stream",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        **measure_stream(crops, settings, cache),
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [
            f"{delay} ms",
            f"{results['samples_per_second'][delay]['median']:.4g}",
            f"{one['median']:.3f} ({one['low']:.3f} to {one['high']:.3f})",
            f"{TARGETS[int(delay)]:g}" if int(delay) in TARGETS else "",
        ]
        for delay, one in results["ratios"].items()
    ]
    return markdown_table(["a read waits", "samples/s", "over none", "target"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_late_stream", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds", "seconds"))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_late_stream", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
