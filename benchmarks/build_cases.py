"""The data of :mod:`benchmarks.bench_build`, and each of its cases as a function.

The cases of one core, and the bound, run in other processes; see :func:`process`.
"""

import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import cv2
import kornia_rs
import numpy as np
from numpy.typing import NDArray

from benchmarks import big_npz, layouts, mannequins, photographs, trees
from benchmarks.harness import descendants, peak_memory
from benchmarks.trees import Tree, make_tree
from refit_shard.converter.annotations.datasets import DATASETS
from refit_shard.converter.build.driver import build, make_task, prepare
from refit_shard.converter.build.plan import BuildOptions, frame_groups
from refit_shard.converter.build.request import BuildRequest
from refit_shard.converter.build.sample import Views, crop_pixels, oriented, plan_row
from refit_shard.converter.build.task import Recipe, ShardResult, ShardTask
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.frames.encode import encode, encoder_options
from refit_shard.converter.reading import read_frame
from refit_shard.shards_spec.storage.folder import open_folder

Pixels = NDArray[np.uint8]

SEED = 0
_MAKERS = (trees, layouts, photographs, mannequins, big_npz)  # the code that a tree depends on


# ---------------------------------------------------------------------------------------- data


def made_by(sources: Sequence[Path]) -> str:
    """A checksum of these sources, which names the version of the files that they make."""
    return f"{zlib.crc32(b''.join(source.read_bytes() for source in sources)):08x}"


def cached_tree(cache: Path, frames: int) -> Tree:
    """A tree of frames, made once for each version of the code that makes it."""
    key = made_by([Path(module.__file__ or "") for module in _MAKERS])
    folder = cache / f"bedlam-{frames}-{key}"
    wanted = Tree("bedlam", folder / "bedlam", folder / "dataset_extras/bedlam_train.npz", 0, 0)
    if not wanted.npz.exists():  # it is written last
        make_tree("bedlam", folder, frames=frames, seed=SEED)
    with np.load(wanted.npz) as npz:
        imgnames = npz["imgname"]
    return replace(wanted, rows=len(imgnames), frames=len(np.unique(imgnames)))


def repeated(tree: Tree, folder: Path, passes: int) -> Tree:
    """The tree repeated ``passes`` times: each pass has its own frame names, linked to the same
    files.

    So a build reads and decodes each frame again in each pass, like different frames.
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
    """The request of a build of the tree."""
    return BuildRequest(
        dataset=DATASETS[tree.name],
        npz=str(tree.npz),
        root=str(tree.root),
        out=str(out),
        options=BuildOptions(samples_per_shard=samples_per_shard, limit=limit),
        workers=workers,
    )


# ------------------------------------------------------- cases that run in processes of their own


@dataclass(frozen=True)
class LoadedFrame:
    """A frame's file, its (H, W), and the crops of its people in BGR, as the encoder takes them."""

    data: bytes
    size: tuple[int, int]
    rows: range
    crops: list[Pixels]


@dataclass(frozen=True)
class Loaded:
    """The data that a measuring process holds in memory."""

    recipe: Recipe
    task: ShardTask
    frames: list[LoadedFrame]


_LOADED: list[Loaded] = []  # one entry once load() ran in this process


def load(tree: Tree, pinned_to: int | None) -> None:
    """Initialise a measuring process: read the frames and cut the crops into memory."""
    if pinned_to is not None:
        os.sched_setaffinity(0, {pinned_to})
        cv2.setNumThreads(1)  # what OpenCV finds by itself where there is one core
    prepared = prepare(request(tree, tree.root, workers=0, samples_per_shard=1_000_000))
    recipe, task = prepared.recipe, make_task(prepared, 0)
    root = open_folder(recipe.root)
    frames = []
    for begin, end in frame_groups(task.frames):
        data = read_frame(root, task.paths[begin])
        stored = decode_frame(data).pixels
        frame = oriented(recipe, Views(stored), task, begin)
        crops = [
            np.asarray(
                cv2.cvtColor(
                    crop_pixels(frame, plan_row(recipe, frame, task, row)), cv2.COLOR_RGB2BGR
                ),
                np.uint8,
            )
            for row in range(begin, end)
        ]
        frames.append(LoadedFrame(data, stored.shape[:2], range(begin, end), crops))
    _LOADED.append(Loaded(recipe, task, frames))


def bound(part: slice) -> int:
    """Decode each frame of the part once and encode its crops; returns the number of crops."""
    loaded = _LOADED[0]
    options = encoder_options(loaded.recipe.quality)
    count = 0
    for frame in loaded.frames[part]:
        kornia_rs.io.decode_image_png_u8(frame.data, frame.size, "rgb")
        for crop in frame.crops:
            cv2.imencode(".jpg", crop, options)
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
            views = Views(decode_frame(read_frame(root, task.paths[row])).pixels)
            frame = oriented(recipe, views, task, row)
            encode(crop_pixels(frame, plan_row(recipe, frame, task, row)), recipe.quality)
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
    """A case's count and seconds, measured in the process that runs it."""
    begin = time.perf_counter()
    count = work(*arguments)
    return count, time.perf_counter() - begin


def plan_big(npz: Path, root: Path) -> dict[str, float]:
    """Read and plan a large npz; returns seconds, and this process's peak memory in bytes."""
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
    """A pool of one fresh process."""
    initializer = None if load_tree is None else partial(load, load_tree, pinned_to)
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=initializer)


# ----------------------------------------------------------------------------------- the build


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """For each shard of a build: seconds from the start until it was finished, and its rows.

    ``began`` is the reading of :func:`time.perf_counter` at the start.
    """

    began: float
    finished: list[tuple[float, int]]
    wall: float
    workers: int

    @property
    def rate(self) -> float:
        """Steady samples/s, once every worker is busy; see :mod:`benchmarks.bench_build`."""
        begin = self.finished[self.workers - 1][0] if self.workers else 0.0
        later = self.finished[self.workers :]
        return sum(rows for _, rows in later) / (later[-1][0] - begin)

    @property
    def overhead(self) -> float:
        """Wall time minus the time of all rows at the steady rate, seconds."""
        return self.wall - sum(rows for _, rows in self.finished) / self.rate


def run_build(wanted: BuildRequest) -> Timeline:
    """Build, then delete the shards; returns when each shard was finished."""
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
    """Processes that build: Ray's busy workers below this process, or this process without Ray."""
    below = descendants(os.getpid())
    workers = [child for child, command in below.items() if command.startswith("ray::build_shard")]
    return workers or [os.getpid()]
