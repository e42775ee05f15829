"""Estimates the size and time of a build from the samples of a few frames."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from refit_shard.converter.build.driver import Prepared, make_task
from refit_shard.converter.build.work import ShardBuilder
from refit_shard.shards_spec.errors import StorageError
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.writer import ShardWriter

_PROBED_FRAMES = 24
_LISTING_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimated result of a build.

    ``packed``: number of frames that are members of archives. ``bytes``, ``seconds``: of all
    shards, with the workers of the request. ``missing``: rows whose frame does not exist;
    ``examples``: the paths of the first three.
    """

    rows: int
    frames: int
    packed: int
    shards: int
    bytes: int
    seconds: float
    missing: int
    examples: tuple[str, ...]


def _listing(folder: Folder) -> dict[str, int]:
    try:
        return folder.names()
    except StorageError:
        if folder.local is None:
            raise
        return {}  # not a folder, or no permission: a build could not read its frames either


def missing_rows(prepared: Prepared) -> tuple[int, list[str]]:
    """The number of rows whose frame is neither in an archive nor in its folder, and the paths of
    these frames. Each folder is listed once.
    """
    root = open_folder(prepared.request.root)
    source, order = prepared.source, prepared.plan.order
    frames, rows = np.unique(prepared.plan.frame_of_row[order], return_counts=True)
    first = {}
    for row in order[::-1].tolist():
        first[int(prepared.plan.frame_of_row[row])] = source.paths[row]
    first = {frame: path for frame, path in first.items() if path not in prepared.packed}
    parents = sorted({str(PurePosixPath(path).parent) for path in first.values()})
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        listings = pool.map(lambda parent: _listing(root.child(parent)), parents)
        present = dict(zip(parents, listings, strict=True))
    absent = [
        (first[frame], count)
        for frame, count in zip(frames.tolist(), rows.tolist(), strict=True)
        if frame in first
        and PurePosixPath(first[frame]).name not in present[str(PurePosixPath(first[frame]).parent)]
    ]
    return sum(count for _, count in absent), sorted(path for path, _ in absent)


def _probe(prepared: Prepared) -> tuple[float, float]:
    """Bytes per row, and seconds per row on one core, measured on the first frames of the plan."""
    task = make_task(prepared, 0)
    last = (
        np.flatnonzero(np.cumsum(np.diff(task.frames, prepend=-1) != 0) <= _PROBED_FRAMES)[-1] + 1
    )
    task = replace(task, frames=task.frames[:last])
    builder = ShardBuilder(prepared.recipe, task)
    writer = ShardWriter(io.BytesIO(), prepared.recipe.fields)
    begin = time.perf_counter()
    rows = 0
    for record, jpeg in builder.samples():
        writer.add(record, jpeg)
        rows += 1
    seconds = time.perf_counter() - begin
    _, tar_bytes, batch = writer.finish()
    return (tar_bytes + batch.nbytes) / max(1, rows), seconds / max(1, rows)


def estimate(prepared: Prepared) -> Estimate:
    """Estimate a build: a few frames are built and measured, and all frames are checked to exist.
    Nothing is written.
    """
    plan = prepared.plan
    missing, examples = missing_rows(prepared)
    size, seconds = _probe(prepared) if plan.shards else (0.0, 0.0)
    rows = len(plan.order)
    workers = available_cores()
    if prepared.request.workers is not None:
        workers = max(1, prepared.request.workers)
    return Estimate(
        rows=rows,
        frames=plan.frames,
        packed=len(prepared.packed),
        shards=plan.shards,
        bytes=round((rows - missing) * size),
        seconds=(rows - missing) * seconds / workers,
        missing=missing,
        examples=tuple(examples[:3]),
    )
