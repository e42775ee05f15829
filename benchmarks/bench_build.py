"""How fast ``refit-shard build`` is beside what no build can beat, and what memory it needs.

    python -m benchmarks.bench_build

Frames are 1280x720 PNG with 2.5 people each, made once below ``data/benchmarks``. Measured, in
turns (see :func:`benchmarks.harness.interleaved`), all in samples/s:

- *bound*: each frame decoded once by the bare decoder, and each of its crops, already cut and
  resized and in memory, encoded by the bare encoder; in as many processes as the build has workers.
- *build*: :func:`converter.build.build` on Ray. Its steady rate: with w workers, the rows of all
  shards after the w-th to finish, over the time from then to the last; the tail, where a worker
  has nothing left, counts against it. *Overhead* is the wall time less all rows at that rate:
  starting Ray and its workers, and the manifest.
- *bound, one core*, *build, one core* (``--workers 0``, whole wall time) and *naive* (the same
  work, but the frame decoded again for every person), in one process pinned to one core.

Then one long build, whose workers' memory is sampled, and the planning of an npz of a million rows
in a process of its own.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, cast

import cv2
import numpy as np
import pyspng
import simplejpeg
from numpy.typing import NDArray

from benchmarks import trees
from benchmarks.harness import (
    CACHE,
    RESULTS,
    MemorySampler,
    Spread,
    cores,
    descendants,
    interleaved,
    machine,
    markdown_table,
    peak_memory,
    ratios,
    spread,
    write_json,
)
from benchmarks.trees import Tree, make_big_npz, make_tree
from converter.build import BuildRequest, build, make_task, prepare
from converter.datasets import find_dataset
from converter.frames import decode_frame, read_frame
from converter.plan import BuildOptions, frame_groups
from converter.work import Recipe, ShardResult, ShardTask, Views, cut, oriented, plan_row
from shards_spec import jpeg
from shards_spec.storage import open_folder

Pixels = NDArray[np.uint8]

PACKAGES = ("numpy", "opencv-python-headless", "pyspng", "simplejpeg", "pyarrow", "ray")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run. ``passes``: how often a build goes over the frames, under other names.

    ``workers``: of the build on Ray; 0 builds in this process, and then nothing starts Ray.
    """

    frames: int = 200
    rounds: int = 5
    workers: int = 2
    passes: int = 6
    samples_per_shard: int = 128
    long_shards: int = 24
    long_samples_per_shard: int = 2048
    plan_rows: int = 1_000_000


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


# ---------------------------------------------------------------------------------------- data


def cached_tree(cache: Path, frames: int) -> Tree:
    """The frames, made once for each version of their maker."""
    made_by = zlib.crc32(Path(trees.__file__).read_bytes())
    folder = cache / f"bedlam-{frames}-{made_by:08x}"
    wanted = Tree("bedlam", folder / "bedlam", folder / "dataset_extras/bedlam_train.npz", 0, 0)
    if not wanted.npz.exists():  # it is written last
        make_tree("bedlam", folder, frames=frames, seed=SEED)
    with np.load(wanted.npz) as npz:
        imgnames = npz["imgname"]
    return replace(wanted, rows=len(imgnames), frames=len(np.unique(imgnames)))


def repeated(tree: Tree, folder: Path, passes: int) -> Tree:
    """The tree ``passes`` times over: every pass has its own frame names, linked to the same files.

    So a build reads and decodes each frame anew in each pass, as it would other frames.
    """
    folder.mkdir(parents=True)
    for number in range(passes):
        (folder / f"pass_{number:03d}").symlink_to(tree.root.resolve())
    with np.load(tree.npz) as npz:
        columns = {key: np.concatenate([npz[key]] * passes) for key in npz.files}
        names = npz["imgname"].tolist()
    columns["imgname"] = np.array(
        [f"pass_{number:03d}/{name}" for number in range(passes) for name in names]
    )
    path = folder / "bedlam_train.npz"
    np.savez(path, **cast(dict[str, Any], columns))
    return Tree(tree.name, folder, path, rows=tree.rows * passes, frames=tree.frames * passes)


def request(
    tree: Tree, out: Path, *, workers: int, samples_per_shard: int, limit: int | None = None
) -> BuildRequest:
    """A build of the tree."""
    return BuildRequest(
        dataset=find_dataset(tree.name),
        npz=tree.npz,
        root=str(tree.root),
        out=str(out),
        options=BuildOptions(samples_per_shard=samples_per_shard, limit=limit),
        workers=workers,
    )


# ------------------------------------------------------- cases that run in processes of their own


@dataclass(frozen=True)
class LoadedFrame:
    """A frame's file and, ready to encode, the crops of its people."""

    data: bytes
    rows: range
    crops: list[Pixels]


@dataclass(frozen=True)
class Loaded:
    """What a measuring process holds in memory."""

    recipe: Recipe
    task: ShardTask
    frames: list[LoadedFrame]


_LOADED: list[Loaded] = []  # of this process; one entry once load() ran


def load(tree: Tree, pinned_to: int | None) -> None:
    """Initialise a measuring process: read the frames, cut the crops, keep both."""
    if pinned_to is not None:
        os.sched_setaffinity(0, {pinned_to})
        cv2.setNumThreads(1)  # what OpenCV finds by itself where there is one core
    prepared = prepare(request(tree, tree.root, workers=0, samples_per_shard=1_000_000))
    recipe, task = prepared.recipe, make_task(prepared, 0)
    root = open_folder(recipe.root)
    frames = []
    for begin, end in frame_groups(task.frames):
        data = read_frame(root, task.paths[begin])
        frame = oriented(recipe, Views(decode_frame(data)), task, begin)
        crops = [
            np.ascontiguousarray(cut(frame, plan_row(recipe, frame, task, row)))
            for row in range(begin, end)
        ]
        frames.append(LoadedFrame(data, range(begin, end), crops))
    _LOADED.append(Loaded(recipe, task, frames))


def bound(part: slice) -> int:
    """Decode each frame of the part once and encode its crops; returns the number of crops."""
    loaded = _LOADED[0]
    quality = loaded.recipe.quality
    count = 0
    for frame in loaded.frames[part]:
        pyspng.load(frame.data)
        for crop in frame.crops:
            simplejpeg.encode_jpeg(crop, quality, "RGB", colorsubsampling="420")
        count += len(frame.crops)
    return count


def naive(part: slice) -> int:
    """Read, decode, cut and encode person by person; returns their number."""
    loaded = _LOADED[0]
    recipe, task = loaded.recipe, loaded.task
    root = open_folder(recipe.root)
    count = 0
    for held in loaded.frames[part]:
        for row in held.rows:
            views = Views(decode_frame(read_frame(root, task.paths[row])))
            frame = oriented(recipe, views, task, row)
            jpeg.encode(cut(frame, plan_row(recipe, frame, task, row)), recipe.quality)
            count += 1
    return count


def build_here(tree: Tree, out: Path, samples_per_shard: int) -> int:
    """Build without Ray; returns the number of rows."""
    prepared = prepare(request(tree, out, workers=0, samples_per_shard=samples_per_shard))
    try:
        return build(prepared, lambda _: None).rows
    finally:
        shutil.rmtree(out, ignore_errors=True)


def timed(work: Callable[..., int], *arguments: object) -> tuple[int, float]:
    """A case's count and seconds, measured where it runs."""
    begin = time.perf_counter()
    count = work(*arguments)
    return count, time.perf_counter() - begin


def plan_big(npz: Path, root: Path) -> dict[str, float]:
    """Read and plan a large npz; seconds, and this process's peak memory in bytes."""
    tree = Tree("bedlam", root, npz, 0, 0)
    begin = time.perf_counter()
    prepared = prepare(request(tree, root / "out", workers=0, samples_per_shard=2048))
    seconds = time.perf_counter() - begin
    return {
        "rows": prepared.source.rows,
        "shards": prepared.plan.shards,
        "seconds": seconds,
        "peak_bytes": peak_memory(),
    }


def process(*, load_tree: Tree | None = None, pinned_to: int | None = None) -> ProcessPoolExecutor:
    """One fresh process, as a pool of one."""
    initializer = None if load_tree is None else partial(load, load_tree, pinned_to)
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=initializer)


# ----------------------------------------------------------------------------------- the build


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When each shard of a build was finished, seconds after it ``began``, and with how many rows.

    ``began`` is a reading of :func:`time.perf_counter`.
    """

    began: float
    finished: list[tuple[float, int]]
    wall: float
    workers: int

    @property
    def rate(self) -> float:
        """Samples/s once every worker is at work; see the module's text."""
        begin = self.finished[self.workers - 1][0] if self.workers else 0.0
        later = self.finished[self.workers :]
        return sum(rows for _, rows in later) / (later[-1][0] - begin)

    @property
    def overhead(self) -> float:
        """Seconds of the wall time beyond all rows at the steady rate."""
        return self.wall - sum(rows for _, rows in self.finished) / self.rate


def run_build(wanted: BuildRequest) -> Timeline:
    """Build, and remove what was built."""
    prepared = prepare(wanted)
    finished: list[tuple[float, int]] = []
    begin = time.perf_counter()

    def on_shard(result: ShardResult) -> None:
        finished.append((time.perf_counter() - begin, result.entry.rows))

    try:
        build(prepared, on_shard)
        wall = time.perf_counter() - begin
    finally:
        shutil.rmtree(wanted.out, ignore_errors=True)
    return Timeline(began=begin, finished=finished, wall=wall, workers=wanted.workers or 0)


def builders() -> list[int]:
    """Processes that build: Ray's busy workers below this process, or itself where it has none."""
    below = descendants(os.getpid())
    workers = [child for child, command in below.items() if command.startswith("ray::build_shard")]
    return workers or [os.getpid()]


def measure_memory(tree: Tree, scratch: Path, settings: Settings) -> dict[str, Any]:
    """A long build: how its workers' memory goes, from the first finished shard on."""
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
            continue  # a build too short to tell
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


# ------------------------------------------------------------------------------------- the run


def measure_speed(tree: Tree, scratch: Path, settings: Settings) -> dict[str, Any]:
    """Every case in turns."""
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

        whole = slice(None)
        for pool in (*pools, alone):
            pool.submit(bound, slice(0, 1)).result()  # loads
        measured = interleaved(
            {
                "bound": on_all,
                "build": on_ray,
                "bound_one_core": lambda: on_one(bound, whole),
                "build_one_core": lambda: on_one(
                    build_here, tree, scratch / f"out{next(spare)}", settings.samples_per_shard
                ),
                "naive_one_core": lambda: on_one(naive, whole),
            },
            settings.rounds,
        )
    rates = {name: asdict(spread(values)) for name, values in measured.items()}
    one = measured["bound_one_core"]
    return {
        "samples_per_second": rates,
        "ratio": {
            "build": asdict(ratios(measured["build"], measured["bound"])),
            "build_one_core": asdict(ratios(measured["build_one_core"], one)),
            "naive_one_core": asdict(ratios(measured["naive_one_core"], one)),
        },
        "overhead_seconds": asdict(spread(overheads[1:])),
    }


def measure_planning(cache: Path, scratch: Path, rows: int) -> dict[str, float]:
    """Make the large npz, once, and plan it in a fresh process."""
    npz = cache / f"big-{rows}.npz"
    if not npz.exists():
        partial = npz.with_suffix(".partial")
        make_big_npz(partial, rows, seed=SEED)
        partial.rename(npz)
    with process() as pool:
        return pool.submit(plan_big, npz, scratch).result()


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """All measurements."""
    cache.mkdir(parents=True, exist_ok=True)
    tree = cached_tree(cache, settings.frames)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        scratch = Path(folder)
        return {
            "benchmark": "bench_build",
            "machine": machine(PACKAGES),
            "settings": {
                **asdict(settings),
                "people_per_frame": tree.rows / tree.frames,
            },
            "speed": measure_speed(tree, scratch, settings),
            "memory": measure_memory(tree, scratch, settings),
            "planning": measure_planning(cache, scratch, settings.plan_rows),
        }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    speed, memory, planning = (results[name] for name in ("speed", "memory", "planning"))
    settings = results["settings"]
    workers = settings["workers"]
    titles = {
        "bound": f"bound: bare decode and encode, {max(1, workers)} processes",
        "build": f"build, --workers {workers}",
        "bound_one_core": "bound, one core",
        "build_one_core": "build, --workers 0, one core",
        "naive_one_core": "naive, one core: the frame decoded for every person",
    }
    rows = []
    for name, title in titles.items():
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
        f"Planning {planning['rows']} rows: {planning['seconds']:.1f} s, "
        f"{planning['peak_bytes'] / 1e9:.2f} GB at most.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, help="frames to make (default 200)")
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    parser.add_argument("--plan-rows", type=int, help="rows to plan (default 1000000)")
    parser.add_argument("--quick", action="store_true", help="tiny, without Ray: does it run?")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for what is made")
    parser.add_argument(
        "--out", type=Path, help="default benchmarks/results/bench_build.json; --quick keeps none"
    )
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in ("frames", "rounds", "plan_rows")}
    settings = replace(
        QUICK if args.quick else Settings(),
        **cast(dict[str, Any], {name: value for name, value in given.items() if value is not None}),
    )
    results = run(settings, args.cache)
    print(report(results))
    out = args.out or (None if args.quick else RESULTS / "bench_build.json")
    if out is not None:
        write_json(out, results)
        print(f"\n{out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
