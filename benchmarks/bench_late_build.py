"""Measures a build's speed on storage with latency, relative to storage without.

    python -m benchmarks.bench_late_build

Frames are those of :mod:`benchmarks.bench_build`, repeated under other names as often as the shards
need. Builds on two workers read them from files, where a library that is preloaded into fresh
processes (``late_opens.cc``) delays each open, and from an S3 server (moto, on the same cores)
behind a proxy that delays each request; a frame takes two requests, one for its size and one for
its bytes. For every delay, the steady rate of :mod:`benchmarks.bench_build` is measured, and its
ratio to the rate without delay in the same round.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.build_cases import cached_tree, process, repeated, request, run_build
from benchmarks.command import chosen, command_line, keep
from benchmarks.harness import machine, markdown_table, rates_over_first
from benchmarks.late_storage import (
    BUCKET,
    OPENS,
    late_files,
    late_library,
    late_store,
    put,
    s3_server,
)
from benchmarks.trees import Tree
from refit_shard.converter.build.request import BuildRequest
from refit_shard.loaders.measure.repeats import Spread

PACKAGES = ("numpy", "opencv-python-headless", "kornia_rs", "pyarrow", "ray", "moto")
TARGETS = {5: 0.97, 30: 0.95, 100: 0.9}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run.

    ``delays``: delays to measure besides none, ms. ``shards``: shards of a build; the first of each
    worker is not counted. ``store_samples_per_shard``: samples per shard of the builds from S3.
    """

    frames: int = 200
    workers: int = 2
    shards: int = 6
    samples_per_shard: int = 2048
    store_samples_per_shard: int = 1024
    delays: tuple[int, ...] = (5, 30, 100)
    rounds: int = 2


QUICK = Settings(
    frames=4,
    workers=0,
    shards=2,
    samples_per_shard=8,
    store_samples_per_shard=4,
    delays=(5,),
    rounds=1,
)


def build_rate(wanted: BuildRequest) -> float:
    """Samples/s of a build; deletes its shards."""
    return run_build(wanted).rate


def _in_turns(
    wanted: BuildRequest, late: Callable[[int], AbstractContextManager[None]], settings: Settings
) -> dict[str, Any]:
    """Rates by delay in milliseconds, and the ratio of each to the rate without delay."""

    def rate(delay: int) -> float:
        with late(delay), process() as pool:
            return pool.submit(build_rate, wanted).result()

    work = {str(delay): partial(rate, delay) for delay in (0, *settings.delays)}
    return rates_over_first(work, settings.rounds)


def measure_build(tree: Tree, scratch: Path, settings: Settings) -> dict[str, Any]:
    """Measure builds from files, and from an S3 server if moto is installed."""

    def wanted(samples_per_shard: int) -> BuildRequest:
        rows = settings.shards * samples_per_shard
        many = repeated(tree, scratch / f"passes-{samples_per_shard}", -(-rows // tree.rows))
        return request(
            many,
            scratch / "out",
            workers=settings.workers,
            samples_per_shard=samples_per_shard,
            limit=rows,
        )

    files = wanted(settings.samples_per_shard)
    library = late_library(scratch, OPENS)
    results = {"files": _in_turns(files, partial(late_files, library, Path(files.root)), settings)}
    if find_spec("moto") is None:
        return results
    store = wanted(settings.store_samples_per_shard)
    with ExitStack() as stack:
        server = stack.enter_context(s3_server())
        for path in sorted(tree.root.rglob("*.png")):
            put(server, str(path.relative_to(tree.root)), path.read_bytes())
        results["store"] = _in_turns(
            replace(store, root=f"s3://{BUCKET}"), partial(late_store, server), settings
        )
    return results


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    cache.mkdir(parents=True, exist_ok=True)
    tree = cached_tree(cache, settings.frames)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        return {
            "benchmark": "bench_late_build",
            "machine": machine(PACKAGES),
            "settings": asdict(settings),
            "build": measure_build(tree, Path(folder), settings),
        }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [
            storage,
            f"{delay} ms",
            str(Spread(**measured["samples_per_second"][delay])),
            str(Spread(**ratio)),
            f"{TARGETS[int(delay)]:g}" if int(delay) in TARGETS else "",
        ]
        for storage, measured in results["build"].items()
        for delay, ratio in measured["ratios"].items()
    ]
    return markdown_table(["from", "each waits", "samples/s", "over no wait", "target"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_late_build", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 2)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_late_build", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
