"""Measures the speed of ``refit-shard build`` against an upper bound, and its memory.

    python -m benchmarks.bench_build
    python -m benchmarks.bench_build --against e608fbe --with-packages FOLDER

Frames are 1280x720 PNG with 2.5 people each, made once in ``data/benchmarks``. These cases are
measured in turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`), in samples/s:

- *bound*: only decoding each frame once, and encoding each of its crops, which are already cut,
  resized and in memory as BGR, with the same encoder options as the build; in as many processes as
  the build has workers.
- *build*: the whole build on Ray. Its steady rate is, with w workers, the rows of all shards after
  the w-th finished one, divided by the time from then to the last; idle workers at the end lower
  it. *Overhead* is the wall time minus the time of all rows at that rate: starting Ray and its
  workers, and writing the manifest.
- *bound, one core*, *build, one core* (``--workers 0``, whole wall time) and *naive* (decoding,
  cropping and encoding, with the frame decoded again for every person), in one process pinned to
  one core.
- *older* (``--against REVISION``): as *build*, with that revision's own code in a temporary git
  worktree. Packages that it needs and that are not installed are taken from a folder; 0.1.0
  (e608fbe) needs ``pip install --no-deps --target FOLDER pyspng``.

Afterwards it measures the processor time of a build by stage (:mod:`benchmarks.build_stages`), the
workers' memory during one long build, and the planning of an npz of a million rows, each in another
process.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.build_cases import (
    SEED,
    bound,
    build_here,
    builders,
    cached_tree,
    naive,
    plan_big,
    process,
    repeated,
    request,
    run_build,
    timed,
)
from benchmarks.build_older import checked_out, older_rate
from benchmarks.build_stages import stage_shares
from benchmarks.command import chosen, command_line, keep
from benchmarks.harness import MemorySampler, cores, machine, markdown_table
from benchmarks.trees import Tree, make_big_npz
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread

PACKAGES = ("numpy", "opencv-python-headless", "kornia_rs", "simplejpeg", "pyarrow", "ray")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run.

    ``passes``: how often a build uses each frame, each time under another name. ``workers``:
    workers of the build on Ray; 0 builds in this process and does not start Ray. ``against``: an
    older revision to measure too. ``with_packages``: a folder of packages that it needs.
    """

    frames: int = 200
    rounds: int = 3
    workers: int = 2
    passes: int = 26
    samples_per_shard: int = 2048
    long_shards: int = 24
    long_samples_per_shard: int = 2048
    plan_rows: int = 1_000_000
    against: str | None = None
    with_packages: Path | None = None


QUICK = Settings(
    frames=4,
    rounds=1,
    workers=0,
    passes=2,
    samples_per_shard=4,
    long_shards=4,
    long_samples_per_shard=8,
    plan_rows=2000,
)


def measure_memory(tree: Tree, scratch: Path, settings: Settings) -> dict[str, Any]:
    """Measure the workers' memory during a long build, from the first finished shard on."""
    rows = settings.long_shards * settings.long_samples_per_shard
    long = repeated(tree, scratch / "long", -(-rows // tree.rows))
    wanted = request(
        long,
        scratch / "long_out",
        workers=settings.workers,
        samples_per_shard=settings.long_samples_per_shard,
        limit=rows,
    )
    with MemorySampler(builders, interval=0.2 if rows > 1000 else 0.01) as sampler:
        timeline = run_build(wanted)
    begin, end = (timeline.began + timeline.finished[index][0] for index in (0, -1))
    workers = []
    for child, series in sampler.series.items():
        steady = [held for when, held in series if begin <= when <= end]
        if len(steady) < 4:
            continue  # too few samples
        quarter = len(steady) // 4
        workers.append(
            {
                "first_quarter_bytes": median(steady[:quarter]),
                "last_quarter_bytes": median(steady[-quarter:]),
                "peak_bytes": sampler.peaks[child],
            }
        )
    return {
        "rows": rows,
        "shards": len(timeline.finished),
        "samples_per_second": timeline.rate,
        "workers": workers,
    }


def measure_speed(tree: Tree, scratch: Path, settings: Settings) -> dict[str, Any]:
    """Measure all cases in turns."""
    many = repeated(tree, scratch / "passes", settings.passes)
    spare: Iterator[int] = iter(range(1_000_000))
    overheads: list[float] = []
    side_by_side = max(1, settings.workers)
    with ExitStack() as stack:
        pools = [stack.enter_context(process(load_tree=tree)) for _ in range(settings.workers)]
        alone = stack.enter_context(process(load_tree=tree, pinned_to=cores()[-1]))

        def on_all() -> float:
            chosen = pools or [alone]
            began = time.perf_counter()
            parts = [
                pool.submit(bound, slice(number, None, side_by_side))
                for number, pool in enumerate(chosen)
            ]
            return sum(part.result() for part in parts) / (time.perf_counter() - began)

        def on_one(work: Callable[..., int], *arguments: object) -> float:
            count, seconds = alone.submit(timed, work, *arguments).result()
            return count / seconds

        def on_ray() -> float:
            out = scratch / f"out{next(spare)}"
            timeline = run_build(
                request(
                    many,
                    out,
                    workers=settings.workers,
                    samples_per_shard=settings.samples_per_shard,
                )
            )
            overheads.append(timeline.overhead)
            return timeline.rate

        cases: dict[str, Callable[[], float]] = {"bound": on_all, "build": on_ray}
        if settings.against is not None:
            code = stack.enter_context(checked_out(settings.against, scratch))
            cases["older"] = lambda: older_rate(
                code,
                settings.with_packages,
                many,
                scratch / f"out{next(spare)}",
                settings.workers,
                settings.samples_per_shard,
            )
        whole = slice(None)
        for pool in (*pools, alone):
            pool.submit(bound, slice(0, 1)).result()  # loads the frames before the measurement
        measured = interleaved(
            cases
            | {
                "bound_one_core": lambda: on_one(bound, whole),
                "build_one_core": lambda: on_one(
                    build_here, tree, scratch / f"out{next(spare)}", settings.samples_per_shard
                ),
                "naive_one_core": lambda: on_one(naive, whole),
            },
            settings.rounds,
        )
    rates = {name: asdict(spread(values)) for name, values in measured.items()}
    of_bound = {"build": "bound", "older": "bound"}
    of_bound |= dict.fromkeys(("build_one_core", "naive_one_core"), "bound_one_core")
    older = measured.get("older")
    return {
        "samples_per_second": rates,
        "ratio": {
            name: asdict(ratios(measured[name], measured[bound]))
            for name, bound in of_bound.items()
            if name in measured
        },
        "over_older": asdict(ratios(measured["build"], older)) if older else None,
        "overhead_seconds": asdict(spread(overheads[1:])),
    }


def measure_stages(tree: Tree, scratch: Path, settings: Settings) -> dict[str, float]:
    """Shares of processor time by stage, measured in a second build of a fresh process."""
    with process() as pool:
        for _ in range(2):
            work = pool.submit(stage_shares, tree, scratch / "stages", settings.samples_per_shard)
            shares = work.result()
    return shares


def measure_planning(cache: Path, scratch: Path, settings: Settings) -> list[dict[str, float]]:
    """Make the large npz once, and measure planning it, each time in a fresh process."""
    rows = settings.plan_rows
    npz = cache / f"big-{rows}.npz"
    if not npz.exists():
        partial = npz.with_suffix(".partial")
        make_big_npz(partial, rows, seed=SEED)
        partial.rename(npz)
    planned = []
    for _ in range(settings.rounds):
        with process() as pool:
            planned.append(pool.submit(plan_big, npz, scratch).result())
    return planned


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    cache.mkdir(parents=True, exist_ok=True)
    tree = cached_tree(cache, settings.frames)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        scratch = Path(folder)
        return {
            "benchmark": "bench_build",
            "machine": machine(PACKAGES),
            "settings": {
                **asdict(settings),
                "with_packages": None,
                "people_per_frame": tree.rows / tree.frames,
            },
            "speed": measure_speed(tree, scratch, settings),
            "stages": measure_stages(tree, scratch, settings),
            "memory": measure_memory(tree, scratch, settings),
            "planning": measure_planning(cache, scratch, settings),
        }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    speed, memory, planning = (results[name] for name in ("speed", "memory", "planning"))
    settings, stages = results["settings"], results["stages"]
    workers = settings["workers"]
    titles = {
        "bound": f"bound: bare decode and encode, {max(1, workers)} processes",
        "build": f"build, --workers {workers}, shards of {settings['samples_per_shard']}",
        "older": f"build of {settings['against']}",
        "bound_one_core": "bound, one core",
        "build_one_core": "build, --workers 0, one core",
        "naive_one_core": "naive, one core: the frame decoded for every person",
    }
    rows = []
    for name, title in titles.items():
        if name not in speed["samples_per_second"]:
            continue
        ratio = speed["ratio"].get(name)
        of_bound = str(Spread(**ratio)) if ratio else "1"
        rows.append([title, str(Spread(**speed["samples_per_second"][name])), of_bound])
    lines = [
        f"{settings['frames']} frames of 1280x720 PNG, {settings['people_per_frame']:.2f} people "
        f"each; {settings['rounds']} rounds; median (least to most). {results['machine']['cpu']}, "
        f"{results['machine']['cores']} cores.",
        "",
        markdown_table(["", "samples/s", "of its bound"], rows),
        "",
        f"Beyond the steady rate, a build takes {Spread(**speed['overhead_seconds'])} s: starting "
        "and stopping Ray and its workers.",
        "",
        f"One core, {stages['whole']:.0f} µs of processor time a sample: "
        + ", ".join(f"{name} {share:.1%}" for name, share in stages.items() if name != "whole")
        + ".",
        "",
        markdown_table(
            ["long build", "first quarter, MB", "last quarter, MB", "peak, MB"],
            [
                [
                    f"worker {number}",
                    f"{worker['first_quarter_bytes'] / 1e6:.0f}",
                    f"{worker['last_quarter_bytes'] / 1e6:.0f}",
                    f"{worker['peak_bytes'] / 1e6:.0f}",
                ]
                for number, worker in enumerate(memory["workers"], 1)
            ],
        ),
        "",
        f"({memory['rows']} rows in {memory['shards']} shards at "
        f"{memory['samples_per_second']:.3g} samples/s)",
        "",
        f"Planning {planning[0]['rows']} rows: "
        f"{spread([one['seconds'] for one in planning])} s, "
        f"{max(one['peak_bytes'] for one in planning) / 1e9:.2f} GB at most.",
    ]
    if speed["over_older"]:
        lines[3:3] = ["", f"Over the older build: {Spread(**speed['over_older'])}."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_build", __doc__)
    parser.add_argument("--frames", type=int, help="frames to make (default 200)")
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 3)")
    parser.add_argument("--against", metavar="REVISION", help="also measure this revision's build")
    parser.add_argument("--with-packages", type=Path, help="folder of packages it needs")
    parser.add_argument("--plan-rows", type=int, help="rows to plan (default 1000000)")
    args = parser.parse_args(argv)
    names = ("frames", "rounds", "plan_rows", "against", "with_packages")
    settings = chosen(args, QUICK, Settings(), names)
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_build", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
