"""Builds one shard. Each frame is read and decoded once, for the crops of all its people.

:mod:`~refit_shard.converter.build.run` calls this module, in this process or on Ray. Nothing is
published here: a shard is written under temporary names, and the driver renames it.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.converter.archives.frames import Frames, work_order
from refit_shard.converter.build.ahead import ReadAhead
from refit_shard.converter.build.plan import frame_groups, pieces
from refit_shard.converter.build.sample import (
    Views,
    crop_pixels,
    make_record,
    oriented,
    plan_row,
)
from refit_shard.converter.build.task import Recipe, ShardResult, ShardTask
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.frames.encode import encode
from refit_shard.converter.reading import Room, open_patiently, patiently
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError, PassingError, ShardError, StorageError
from refit_shard.shards_spec.fields import npy_dtype
from refit_shard.shards_spec.manifest import ShardEntry
from refit_shard.shards_spec.names import sample_key, shard_stem
from refit_shard.shards_spec.process import settle_process
from refit_shard.shards_spec.reader import parse_index, read_seal
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.writer import Quarantined, shard_content, write_shard

_CHUNK = 8 << 20
# Frames in archives are read in the archives' order, so their samples wait in memory until those
# before them in the shard are finished. About this many bytes may wait, with a JPEG's size
# estimated from the pixels of a crop.
_WAITING_BYTES = 96 << 20
_JPEG_BYTES_A_PIXEL = 0.2

Samples = Generator[tuple[NDArray[np.void], bytes], None, None]


class ShardBuilder:
    """Makes the samples of a task; rows that fail are collected in :attr:`quarantined`.

    ``warned``: number of samples whose frame was read with a warning, by the warning's text.
    """

    def __init__(self, recipe: Recipe, task: ShardTask) -> None:
        self.recipe = recipe
        self.task = task
        self.root = open_folder(recipe.root, "--root")
        self.read: Callable[[str, Room], bytes] = Frames(self.root, task.members).read
        self.frames = 0
        self._faults: dict[int, Quarantined] = {}
        self.warned: Counter[str] = Counter()
        self.dtype = npy_dtype(recipe.fields)

    def samples(self) -> Samples:
        """Yields (record, JPEG) in the order of the task; frames in archives are read in the
        archives' order. Close the generator if it is not used to its end.

        Raises:
            PassingError: storage or memory failed, which says nothing about the rows.
        """
        side = 2.0 * self.recipe.envelope.half_side(self.recipe.box_px)
        most = max(1, int(_WAITING_BYTES / (_JPEG_BYTES_A_PIXEL * side**2)))
        for piece in pieces(frame_groups(self.task.frames), most):
            yield from self.samples_of(piece)

    def samples_of(self, groups: Sequence[tuple[int, int]]) -> Samples:
        """Like :meth:`samples`, for some frames, each given as its run of rows (begin, end)."""
        paths = [self.task.paths[begin] for begin, _ in groups]
        order = work_order(self.task.members, paths)
        done: dict[int, list[tuple[NDArray[np.void], bytes]]] = {}
        following = 0
        with ReadAhead(self.read, [paths[index] for index in order]) as files:
            for index, file in zip(order, files, strict=True):
                done[index] = list(self._samples_of_frame(range(*groups[index]), file))
                while following in done:  # a sample waits for those before it
                    yield from done.pop(following)
                    following += 1

    def _samples_of_frame(self, rows: range, file: Callable[[], bytes]) -> Samples:
        """Yields the samples of one frame's rows; the frame is decoded once. ``file`` waits for the
        frame's bytes and returns them.
        """
        where = f"{self.root.url.rstrip('/')}/{self.task.paths[rows[0]]}"
        try:
            data = file()
            decoded = patiently(lambda: decode_frame(data), where)
        except FrameError as error:
            for row in rows:
                self._quarantine(row, error)
            return
        self.frames += 1
        views = Views(decoded.pixels)
        for row in rows:
            try:
                sample = patiently(partial(self._sample, row, data, views), where)
            except FrameError as error:
                self._quarantine(row, error)
            else:
                if decoded.warning is not None:
                    self.warned[decoded.warning] += 1
                yield sample

    def _sample(self, row: int, data: bytes, views: Views) -> tuple[NDArray[np.void], bytes]:
        frame = oriented(self.recipe, views, self.task, row)
        crop = plan_row(self.recipe, frame, self.task, row)
        key = sample_key(self.recipe.dataset.name, int(self.task.source_rows[row]))
        record = make_record(self.task, row, key, crop, frame, self.dtype)
        if not self.recipe.dataset.cropped:
            return record, encode(crop_pixels(frame, crop), self.recipe.quality)
        return record, data if jpeg.is_plain(data) else encode(frame, self.recipe.quality)

    def _quarantine(self, row: int, error: FrameError) -> None:
        self._faults[row] = Quarantined(
            source_row=int(self.task.source_rows[row]),
            imgname=self.task.imgnames[row],
            reason=error.reason,
            detail=str(error),
        )

    @property
    def quarantined(self) -> list[Quarantined]:
        """The rows that failed, in the order of the task."""
        return [fault for _, fault in sorted(self._faults.items())]

    def seal(self, tar_sha256: str, tar_bytes: int) -> dict[str, Any]:
        """What the index states besides its columns, once all samples are written."""
        return shard_content(
            plan_hash=self.recipe.plan_hash,
            tar_sha256=tar_sha256,
            tar_bytes=tar_bytes,
            frames=self.frames,
            quarantined=self.quarantined,
            warned=self.warned,
        )


def find_shard(plan_hash: str, folder: Folder, index: int, stem: str) -> ShardResult | None:
    """The existing shard with this stem, if it is complete and of this plan; else None.

    Raises:
        PassingError: its storage fails, which says nothing about the shard.
    """
    try:
        with open_patiently(folder, f"{stem}.arrow") as file:
            data = bytes(file.read())
        where = f"{folder.url}/{stem}.arrow"
        batch = parse_index(pa.py_buffer(data), where)
        seal = read_seal(batch, where)
        if seal.plan_hash != plan_hash:
            return None
        tar = _fingerprint(folder, f"{stem}.tar")
    except StorageError as error:
        raise PassingError(str(error)) from error
    except (ShardError, OSError):
        return None
    if tar != (seal.tar_sha256, seal.tar_bytes):
        return None
    entry = ShardEntry(
        name=stem,
        rows=batch.num_rows,
        tar_bytes=seal.tar_bytes,
        tar_sha256=seal.tar_sha256,
        arrow_bytes=len(data),
        arrow_sha256=hashlib.sha256(data).hexdigest(),
    )
    return ShardResult(
        index=index,
        entry=entry,
        rows=rows_of(batch),
        frames=seal.frames,
        quarantined=seal.quarantined,
        warned=seal.warned,
    )


def _fingerprint(folder: Folder, name: str) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file."""
    digest = hashlib.sha256()
    size = 0
    with open_patiently(folder, name) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def rows_of(index: pa.RecordBatch) -> NDArray[np.int64]:
    """The source rows in an index."""
    return np.array(index.column("source_row").to_numpy(), np.int64)


def would_now_succeed(recipe: Recipe, task: ShardTask, quarantined: Sequence[Quarantined]) -> bool:
    """True if any quarantined row can be built now, because its frame was added since."""
    rows = {row.source_row for row in quarantined}
    builder = ShardBuilder(recipe, task)
    chosen = [row for row, source in enumerate(task.source_rows.tolist()) if source in rows]
    with closing(builder.samples_of([(row, row + 1) for row in chosen])) as samples:
        return next(samples, None) is not None


def build_shard(recipe: Recipe, task: ShardTask) -> ShardResult:
    """Find a complete shard of this plan among the candidates, or build one under temporary names.

    Raises:
        PassingError: the storage of a frame or of an existing shard fails.
        StorageError: the shard could not be written.
    """
    settle_process()
    cv2.setNumThreads(1)  # a worker has one core; more threads would compete with other workers
    folder = open_folder(recipe.out, "--out")
    whole = []
    for stem in task.candidates:
        found = find_shard(recipe.plan_hash, folder, task.index, stem)
        if found is not None:
            if not would_now_succeed(recipe, task, found.quarantined):
                return found
            whole.append(stem)
    builder = ShardBuilder(recipe, task)
    stem, attempt = shard_stem(recipe.dataset.name, task.index), secrets.token_hex(8)
    with closing(builder.samples()) as samples:
        entry, index = write_shard(folder, stem, attempt, recipe.fields, samples, builder.seal)
    return ShardResult(
        index=task.index,
        entry=entry,
        rows=rows_of(index),
        frames=builder.frames,
        quarantined=tuple(builder.quarantined),
        warned=dict(builder.warned),
        attempt=attempt,
        whole=tuple(whole),
    )
