"""SPIN annotations, checked: an npz of any of the datasets becomes columns of the field table."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.converter.annotations.columns import (
    ROW_SHAPES,
    Columns,
    label_dtype,
    read_labels,
)
from refit_shard.converter.annotations.keep import Keep, Kept, read_kept
from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.remaps import Remap, remapped
from refit_shard.converter.annotations.spool import Spool
from refit_shard.shards_spec.fields import EXTRINSICS
from refit_shard.shards_spec.geometry import box_side
from refit_shard.shards_spec.storage.paths import below_root, slashed
from refit_shard.shards_spec.writer import Quarantined

# A smaller box would vanish when the augmentation shrinks it to whole pixels.
MIN_BOX_SIDE = 4.0
# No file system takes a longer path, and every sample has room for the longest name.
MAX_IMGNAME_BYTES = 4096
# No frame comes near; whole pixels of this size fit every column.
MAX_PIXELS = float(2**24)
# Labels that are held in memory besides: what is looked at of single rows, and small.
HELD = ("center", "scale", "has_smpl", "img_focal", "img_center", "orig_shape")
_CHUNK = 1 << 14  # rows that are compared at a time
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@dataclass(kw_only=True)
class Annotations:
    """The annotations of one dataset, one entry a row of the npz.

    ``total``: rows of the npz, of which only the first ones are considered. ``records``: every
    row's labels, columns under the field table's names in the table's dtypes; ``orig_shape``
    (float64 (2,)) only where the npz states it. ``labels``: those of HELD as arrays (rows, …).
    ``kept``: labels of the user's own, which decide of no row whether it can be used. ``paths``:
    each row's frame below the root. ``frame_of_row``: its number among the frames, in the order of
    their first rows. ``faults``: rows that cannot be used, found before any frame
    is read.
    """

    npz: str
    total: int
    records: Spool
    labels: dict[str, NDArray[Any]]
    found: tuple[str, ...]
    absent: tuple[str, ...]
    unused: tuple[str, ...]
    kept: Kept = field(default_factory=Kept)
    sha256: str = ""
    imgnames: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    frame_of_row: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: dict[int, Quarantined] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the npz that are considered."""
        return len(self.imgnames)

    @property
    def left_out(self) -> tuple[tuple[int, int], ...]:
        """Runs (begin, end) of rows of the npz that are not considered."""
        return ((self.rows, self.total),) if self.rows < self.total else ()

    @property
    def extrinsics(self) -> bool:
        """Whether every row has camera extrinsics."""
        return EXTRINSICS[0] in self.records.names

    @property
    def imgname_bytes(self) -> int:
        """Length of the longest name of a row that can be used, as UTF-8."""
        names = {name for row, name in enumerate(self.imgnames) if row not in self.faults}
        return max((len(name.encode()) for name in names), default=1)

    def take(self, rows: ArrayLike) -> dict[str, NDArray[Any]]:
        """All labels of some rows, (n,) int, by their names: arrays (n, …).

        Raises:
            StorageError: the disk that they wait on fails.
        """
        records = self.records.take(rows)
        return {name: records[name] for name in self.records.names}

    def fault(self, row: int, reason: str, detail: str) -> None:
        """Quarantine a row; the first reason counts."""
        self.faults.setdefault(
            row,
            Quarantined(source_row=row, imgname=self.imgnames[row], reason=reason, detail=detail),
        )


def frame_path(imgname: str, root: str, remaps: Sequence[Remap]) -> str | None:
    """A frame's path below ``root``, or None where the name leads out of it.

    An absolute name is accepted where it lies below ``root``, which either may name through
    symbolic links. Backslashes are slashes in a name that has no others.
    """
    if "\0" in imgname or len(imgname) > MAX_IMGNAME_BYTES:
        return None
    imgname = remapped(slashed(imgname), remaps)
    if imgname.startswith("/"):
        imgname = _below(imgname, root)
    return below_root(imgname)


def _below(imgname: str, root: str) -> str:
    """An absolute name as one below ``root``, or unchanged if it is not."""
    if "://" in root:
        return imgname
    root = os.path.abspath(root)
    if imgname.startswith(root.rstrip("/") + "/"):
        return imgname[len(root.rstrip("/")) + 1 :]
    real = _real(root)
    parent = imgname.rpartition("/")[0]
    while parent.strip("/"):
        if _real(parent) == real:
            return imgname[len(parent) + 1 :]
        parent = parent.rpartition("/")[0]
    return imgname


@lru_cache(1 << 16)
def _real(folder: str) -> str:
    """The folder without symbolic links."""
    return os.path.realpath(folder)


def _fault_rows(
    source: Annotations,
    begin: int,
    bad: NDArray[np.bool_],
    reason: str,
    detail: Callable[[int], str],
) -> None:
    """Quarantine the rows from ``begin`` on that are ``bad``."""
    for row in np.flatnonzero(bad).tolist():
        source.fault(begin + row, reason, detail(row))


def _check_labels(source: Annotations, begin: int, labels: NDArray[np.void]) -> None:
    """Quarantine rows, from ``begin`` on, whose box or labels are not usable numbers."""
    names = labels.dtype.names or ()
    with np.errstate(over="ignore", invalid="ignore"):
        side = box_side(labels["scale"])
        near = np.abs(np.column_stack([side, labels["center"]])) <= MAX_PIXELS
        bad_box = ~near.all(axis=1)  # NaN is not near either
    _fault_rows(
        source,
        begin,
        bad_box,
        "bad_box",
        lambda row: f"center {labels['center'][row].tolist()}, scale {labels['scale'][row]}",
    )
    _fault_rows(
        source,
        begin,
        ~bad_box & (side < MIN_BOX_SIDE),
        "bad_box",
        lambda row: f"box side {side[row]:.3g} px, must be at least {MIN_BOX_SIDE:.0f}",
    )
    for name in names:
        if labels.dtype[name].base.kind == "f" and name not in ("center", "scale"):
            finite = np.isfinite(labels[name]).reshape(len(labels), -1)
            if not finite.all():
                for row in np.flatnonzero(~finite.all(axis=1)).tolist():
                    source.fault(begin + row, "nonfinite_label", f"{name} holds NaN or infinity")
    if "img_focal" in names:
        focal = labels["img_focal"]
        _fault_rows(
            source, begin, focal <= 0, "bad_camera", lambda row: f"img_focal {focal[row]:g}"
        )
    if "orig_shape" in names:
        stated = labels["orig_shape"]
        no_size = np.asarray(((stated < 1) | (stated > MAX_PIXELS)).any(axis=1))
        _fault_rows(
            source,
            begin,
            no_size,
            "size_mismatch",
            lambda row: f"orig_shape says {stated[row].tolist()}",
        )


def _check_duplicates(source: Annotations) -> None:
    """Quarantine rows that repeat an earlier row in every label."""
    center, scale = source.labels["center"], source.labels["scale"]
    box = np.column_stack([center, scale]).view(np.uint64)
    mixed = (box * _MIXERS).sum(axis=1, dtype=np.uint64)  # equal boxes, and hardly others, agree
    _, inverse, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(counts[inverse] > 1)
    first: dict[bytes, int] = {}
    for begin in range(0, len(candidates), _CHUNK):
        rows = candidates[begin : begin + _CHUNK]
        for row, record in zip(rows.tolist(), source.records.take(rows), strict=True):
            digest = hashlib.sha256(source.paths[row].encode() + record.tobytes()).digest()
            original = first.setdefault(digest, row)
            if original != row:
                source.fault(row, "duplicate_row", f"the same as row {original} in every label")


def _plain(names: Collection[str | bytes]) -> dict[str | bytes, str] | None:
    """Each of these names as its own path, where all are paths below a root as they stand, which
    takes a fraction of the time when all are looked at together. None where one may not be.
    """
    texts = [name for name in names if isinstance(name, str)]
    together = "/".join(["root", *texts])
    is_plain = (
        len(texts) == len(names)
        and 4 * max(map(len, texts), default=0) <= MAX_IMGNAME_BYTES
        and together.isascii()
        and "\0" not in together
        and "\\" not in together
        and below_root(together) == together
    )
    return {text: text for text in texts} if is_plain else None


class _Names:
    """The frames' names, and each one's path; equal ones are one object."""

    def __init__(self, root: str, remaps: Sequence[Remap]) -> None:
        self._root = root
        self._remaps = remaps
        self._names: dict[str | bytes, str] = {}
        self._paths: dict[str | bytes, str] = {}
        self._faults: dict[str | bytes, tuple[str, str]] = {}

    def add(self, source: Annotations, texts: Sequence[str | bytes]) -> None:
        """Append the rows of these names; those that cannot be used are quarantined."""
        begin = source.rows
        fresh = {text for text in texts if text not in self._names}
        plain = None if self._remaps else _plain(fresh)
        if plain is not None:
            self._names |= plain
            self._paths |= plain
        else:
            for text in fresh:
                self._look(text)
        source.imgnames += map(self._names.__getitem__, texts)
        source.paths += map(self._paths.__getitem__, texts)
        if self._faults:
            for row, text in enumerate(texts, begin):
                if text in self._faults:
                    source.fault(row, *self._faults[text])

    def _look(self, text: str | bytes) -> None:
        """Find a name's text, its path below the root, and what is wrong with it."""
        try:
            data = text if isinstance(text, bytes) else text.encode()
            name = data.decode() if isinstance(text, bytes) else text
            if len(data) > MAX_IMGNAME_BYTES:
                self._faults[text] = "bad_imgname", f"more than {MAX_IMGNAME_BYTES} bytes"
        except UnicodeError:  # as text it may hold half a surrogate pair
            name = ascii(text)
            self._faults[text] = "bad_imgname", "not valid UTF-8"
        path = frame_path(name, self._root, self._remaps)
        if path is None:
            outside = "path_outside_root", "the name is empty or leads out of the root"
            self._faults.setdefault(text, outside)
        self._names[text] = name
        self._paths[text] = name if path == name else path or ""


def _numbered(paths: Sequence[str]) -> NDArray[np.int64]:
    """The number of each path among the distinct ones, in their order."""
    numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    return np.fromiter(map(numbers.__getitem__, paths), np.int64, len(paths))


def _read_rows(source: Annotations, columns: Columns, names: _Names, beside: Executor) -> None:
    """Read, check and append all rows; the next ones are read, and the last written, meanwhile."""
    parts = columns.parts()
    coming = beside.submit(next, parts, None)
    written = None
    while (part := coming.result()) is not None:
        coming = beside.submit(next, parts, None)
        begin = source.rows
        names.add(source, part.texts("imgname"))
        labels = read_labels(part, source.records.dtype, source.rows - begin)
        _check_labels(source, begin, labels)
        for name, held in source.labels.items():
            held[begin : source.rows] = labels[name]
        if written is not None:
            written.result()
        written = beside.submit(source.records.append, labels)
    if written is not None:
        written.result()


def read_annotations(
    npz_path: str,
    root: str,
    *,
    use_pose_3d: bool,
    remaps: Sequence[Remap] = (),
    limit: int | None = None,
    keep: Sequence[Keep] = (),
) -> Annotations:
    """Read and check one npz, by path or URL. Only the first ``limit`` rows are considered.

    ``keep``: arrays that are carried along as they are.

    Raises:
        SourceError: a key is missing, or of another shape or kind than it must be.
        StorageError: the object store failed, or there is no room for the labels.
    """
    with closing(Npz(npz_path)) as npz, ThreadPoolExecutor(2) as beside:
        columns = Columns(npz, limit, use_pose_3d=use_pose_3d)
        sha256 = npz.hash_beside()
        dtype, own = label_dtype(columns.keys), {one.name for one in keep}
        source = Annotations(
            npz=npz_path,
            total=columns.total,
            records=Spool(dtype),
            labels={
                name: np.empty(columns.rows, dtype[name])
                for name in HELD
                if name in (dtype.names or ())
            },
            found=tuple(key for key in ROW_SHAPES if key in npz.entries),
            absent=tuple(key for key in ROW_SHAPES if key not in npz.entries),
            unused=tuple(key for key in npz.entries if key not in {*ROW_SHAPES, *own}),
        )
        _read_rows(source, columns, _Names(root, remaps), beside)
        source.kept = read_kept(npz, keep, columns.total, columns.rows)
        source.frame_of_row = _numbered(source.paths)
        _check_duplicates(source)
        source.sha256 = sha256()  # what takes longest is waited for last
    return source
