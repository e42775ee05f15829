"""Reads SPIN annotations: checks an npz and converts it to the columns of the field table."""

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

# Px. The augmentation could shrink a smaller box to zero whole pixels.
MIN_BOX_SIDE = 4.0
# No file system takes a longer path. Every sample takes as much space as the longest name.
MAX_IMGNAME_BYTES = 4096
# No frame is nearly as large; whole pixels of this size fit into every column.
MAX_PIXELS = float(2**24)
# Labels that are also held in memory: small ones that are used row by row.
HELD = ("center", "scale", "has_smpl", "img_focal", "img_center", "orig_shape")
_CHUNK = 1 << 14  # rows that are compared at a time
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@dataclass(kw_only=True)
class Annotations:
    """The annotations of one dataset, with one entry for each row of the npz that is considered.

    ``total``: number of rows of the npz. ``records``: every row's labels, with the field table's
    names and dtypes; ``orig_shape`` (float64 (2,)) only if the npz has it. ``labels``: those of
    HELD, as arrays (rows, …). ``found``, ``absent``, ``unused``: standard keys that the npz has and
    lacks, and other keys. ``kept``: own labels; they never make a row unusable. ``sha256``: of the
    npz. ``paths``: each row's frame below the root. ``frame_of_row``: each row's frame as a number,
    in the order of the frames' first rows. ``faults``: rows that cannot be used, as the labels
    alone show.
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
        """Number of rows of the npz that are considered."""
        return len(self.imgnames)

    @property
    def left_out(self) -> tuple[tuple[int, int], ...]:
        """Runs (begin, end) of rows of the npz that are not considered."""
        return ((self.rows, self.total),) if self.rows < self.total else ()

    @property
    def extrinsics(self) -> bool:
        """True if every row has camera extrinsics."""
        return EXTRINSICS[0] in self.records.names

    @property
    def imgname_bytes(self) -> int:
        """Bytes of the longest name, as UTF-8, among the rows that can be used."""
        names = {name for row, name in enumerate(self.imgnames) if row not in self.faults}
        return max((len(name.encode()) for name in names), default=1)

    def take(self, rows: ArrayLike) -> dict[str, NDArray[Any]]:
        """All labels of the rows, (n,) int, by name: arrays (n, …).

        Raises:
            StorageError: the disk with the temporary file fails.
        """
        records = self.records.take(rows)
        return {name: records[name] for name in self.records.names}

    def fault(self, row: int, reason: str, detail: str) -> None:
        """Quarantine a row, unless it is already for another reason."""
        self.faults.setdefault(
            row,
            Quarantined(source_row=row, imgname=self.imgnames[row], reason=reason, detail=detail),
        )


def frame_path(imgname: str, root: str, remaps: Sequence[Remap]) -> str | None:
    """A frame's path below ``root``; None if the name leads out of it.

    An absolute name is accepted if it is below ``root``; symbolic links in both are resolved.
    Backslashes count as slashes in a name that has no slashes.
    """
    if "\0" in imgname or len(imgname) > MAX_IMGNAME_BYTES:
        return None
    imgname = remapped(slashed(imgname), remaps)
    if imgname.startswith("/"):
        imgname = _below(imgname, root)
    return below_root(imgname)


def _below(imgname: str, root: str) -> str:
    """An absolute name relative to ``root``; unchanged if it is not below ``root``."""
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
    """The folder's path with symbolic links resolved."""
    return os.path.realpath(folder)


def _fault_rows(
    source: Annotations,
    begin: int,
    bad: NDArray[np.bool_],
    reason: str,
    detail: Callable[[int], str],
) -> None:
    """Quarantine the rows that are ``bad``; ``begin``: number of the first row of ``bad``."""
    for row in np.flatnonzero(bad).tolist():
        source.fault(begin + row, reason, detail(row))


def _check_labels(source: Annotations, begin: int, labels: NDArray[np.void]) -> None:
    """Quarantine rows whose box or labels are not usable numbers; ``begin``: number of the first
    row of ``labels``.
    """
    names = labels.dtype.names or ()
    with np.errstate(over="ignore", invalid="ignore"):
        side = box_side(labels["scale"])
        near = np.abs(np.column_stack([side, labels["center"]])) <= MAX_PIXELS
        bad_box = ~near.all(axis=1)  # comparisons with NaN are False
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
    mixed = (box * _MIXERS).sum(axis=1, dtype=np.uint64)  # a hash of the box
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
    """The names mapped to themselves, if all of them are valid paths below a root without any
    change; else None. Checking all names joined into one text takes a fraction of the time.
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
    """Finds the path of each frame's name, once for each distinct name."""

    def __init__(self, root: str, remaps: Sequence[Remap]) -> None:
        self._root = root
        self._remaps = remaps
        self._names: dict[str | bytes, str] = {}
        self._paths: dict[str | bytes, str] = {}
        self._faults: dict[str | bytes, tuple[str, str]] = {}

    def add(self, source: Annotations, texts: Sequence[str | bytes]) -> None:
        """Append a row for each of these names; rows with unusable names are quarantined."""
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
        """Find a name's text, its path below the root, and its fault if it is unusable."""
        try:
            data = text if isinstance(text, bytes) else text.encode()
            name = data.decode() if isinstance(text, bytes) else text
            if len(data) > MAX_IMGNAME_BYTES:
                self._faults[text] = "bad_imgname", f"more than {MAX_IMGNAME_BYTES} bytes"
        except UnicodeError:  # a numpy string may contain half a surrogate pair
            name = ascii(text)
            self._faults[text] = "bad_imgname", "not valid UTF-8"
        path = frame_path(name, self._root, self._remaps)
        if path is None:
            outside = "path_outside_root", "the name is empty or leads out of the root"
            self._faults.setdefault(text, outside)
        self._names[text] = name
        self._paths[text] = name if path == name else path or ""


def _numbered(paths: Sequence[str]) -> NDArray[np.int64]:
    """The index of each path among the distinct paths, in the order of first occurrence."""
    numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    return np.fromiter(map(numbers.__getitem__, paths), np.int64, len(paths))


def _read_rows(source: Annotations, columns: Columns, names: _Names, beside: Executor) -> None:
    """Read, check and append all rows. While a part is checked, the next one is read and the last
    one written, in threads.
    """
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
    """Read and check one npz.

    Args:
        npz_path: path or URL of the npz.
        root: folder or URL of the frames.
        use_pose_3d: True to read the key S.
        remaps: of frame names.
        limit: consider only this many first rows; None for all.
        keep: own labels.

    Raises:
        SourceError: a key is missing, or has a wrong shape or dtype.
        StorageError: the object store failed, or there is no space for the labels.
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
        source.sha256 = sha256()  # last, because hashing takes longest
    return source
