"""Estimates what a build would take: a few frames are built, the rest is extrapolated."""

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
    """``missing``: rows whose frame is not there; ``examples``: the first few such frames.

    ``packed``: frames that lie in archives.
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
        return {}  # a file in a folder's place, or no permission: no frame is read there


def missing_rows(prepared: Prepared) -> tuple[int, list[str]]:
    """Rows whose frame is neither in an archive nor in its folder, and those frames.

    Each folder is listed once.
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
    """Measured bytes a row, and seconds a row on one core, for the first frames of the plan."""
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
    """Measure a few frames and look for all of them; writes nothing."""
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
