"""SPIN annotations, checked: an npz of any of the data sets becomes columns of the field table."""

import hashlib
import os
import posixpath
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.keep import Keep, Kept, read_kept
from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.remaps import Remap, remapped
from refit_shard.shards_spec.errors import SourceError
from refit_shard.shards_spec.fields import EXTRINSICS
from refit_shard.shards_spec.geometry import box_side
from refit_shard.shards_spec.writer import Quarantined

# Row shapes of the keys that are read. imgname, center and scale must be there.
ROW_SHAPES: dict[str, tuple[int, ...]] = {
    "imgname": (),
    "center": (2,),
    "scale": (),
    "openpose": (25, 3),
    "part": (24, 3),
    "pose": (72,),
    "shape": (10,),
    "has_smpl": (),
    "S": (24, 4),
    "gender": (),
    "img_focal": (),
    "img_center": (2,),
    "orig_shape": (2,),
    "cam_R": (3, 3),
    "cam_t": (3,),
    "trans": (3,),
}
REQUIRED = ("imgname", "center", "scale")

# A smaller box would vanish when the augmentation shrinks it to whole pixels.
MIN_BOX_SIDE = 4.0
# No file system takes a longer path, and every sample has room for the longest name.
MAX_IMGNAME_BYTES = 4096
# No frame comes near; whole pixels of this size fit every column.
MAX_PIXELS = float(2**24)


@dataclass(kw_only=True)
class Source:
    """The annotations of one data set, one entry a row of the npz.

    ``labels``: columns under the field table's names, in the table's dtypes; ``orig_shape``
    (int32 (rows, 2)) only where the npz states it. ``paths``: each row's frame below the root.
    ``faults``: rows that cannot be used, found before any frame is read. ``total``: rows of the
    npz, of which only the first ones are considered. ``kept``: labels of the user's own, which
    decide of no row whether it can be used.
    """

    npz: str
    sha256: str
    total: int
    imgnames: list[str]
    paths: list[str]
    labels: dict[str, NDArray[Any]]
    found: tuple[str, ...]
    absent: tuple[str, ...]
    unused: tuple[str, ...]
    kept: Kept = field(default_factory=Kept)
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
        return EXTRINSICS[0] in self.labels

    @property
    def imgname_bytes(self) -> int:
        """Length of the longest name of a row that can be used, as UTF-8."""
        names = (name for row, name in enumerate(self.imgnames) if row not in self.faults)
        return max((len(name.encode()) for name in names), default=1)

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
    if "/" not in imgname:
        imgname = imgname.replace("\\", "/")
    imgname = remapped(imgname, remaps)
    if imgname.startswith("/"):
        imgname = _below(imgname, root)
    path = posixpath.normpath(imgname)
    if path.startswith(("/", "../")) or path in ("..", ".", ""):
        return None
    return path


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


class _Columns:
    """Reads and checks the npz's arrays, as one line each where they are wrong."""

    def __init__(self, npz: Npz, limit: int | None) -> None:
        self.npz = npz
        for key in REQUIRED:
            if key not in npz.entries:
                raise SourceError(
                    f"{npz.path}: key {key!r} is missing; found: {', '.join(npz.entries) or 'none'}"
                )
        shape = npz.entries["imgname"].shape
        if len(shape) != 1:
            raise SourceError(f"{npz.path}: 'imgname' must have shape (N,), got {shape}")
        self.total = shape[0]
        if self.total == 0:
            raise SourceError(f"{npz.path}: holds no rows")
        self.rows = min(self.total, limit or self.total)

    def __contains__(self, key: str) -> bool:
        return key in self.npz.entries

    def read(self, key: str) -> NDArray[Any]:
        """The rows in use of one array, its shape checked; (N, 1) is taken for (N,)."""
        entry = self.npz.entries[key]
        row_shape = ROW_SHAPES[key]
        expected = (self.total, *row_shape)
        flat = int(np.prod(row_shape, dtype=int))
        accepted = {expected, (self.total, flat)}
        if entry.shape not in accepted:
            raise SourceError(
                f"{self.npz.path}: {key!r} must have shape {expected}, got {entry.shape}"
            )
        return self.npz.read(key)[: self.rows].reshape(self.rows, *row_shape)

    def numbers(self, key: str, dtype: str) -> NDArray[Any]:
        """A numeric column; numbers written as strings are read, anything else becomes NaN."""
        values = self.read(key)
        if values.dtype.kind in "US":
            values = _parse_numbers(values)
        if values.dtype.kind not in "fiub":
            raise SourceError(f"{self.npz.path}: {key!r} must be numbers, got dtype {values.dtype}")
        with np.errstate(over="ignore"):
            return values.astype(dtype)

    def texts(self, key: str) -> tuple[list[str], list[int]]:
        """A column of strings, and the rows that are not valid UTF-8."""
        values = self.read(key)
        if values.dtype.kind not in "US":
            raise SourceError(f"{self.npz.path}: {key!r} must be strings, got dtype {values.dtype}")
        bad = []
        texts = []
        for row, value in enumerate(values.tolist()):
            try:
                data = value if isinstance(value, bytes) else value.encode()
                texts.append(data.decode())
            except UnicodeError:  # as text it may hold half a surrogate pair
                texts.append(ascii(value))
                bad.append(row)
        return texts, bad


def _parse_numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return values.astype(np.float64)
    except ValueError:
        return np.array([_number(value) for value in values.ravel()]).reshape(values.shape)


def _number(text: str | bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _read_labels(columns: _Columns, *, use_pose_3d: bool) -> dict[str, NDArray[Any]]:
    rows = columns.rows
    labels: dict[str, NDArray[Any]] = {
        "center": columns.numbers("center", "float64"),
        "scale": columns.numbers("scale", "float64"),
        "keypoints": np.zeros((rows, 49, 3), np.float32),
    }
    if "openpose" in columns:
        labels["keypoints"][:, :25] = columns.numbers("openpose", "float32")
    if "part" in columns:
        labels["keypoints"][:, 25:] = columns.numbers("part", "float32")
    labels |= _read_smpl(columns)
    known = use_pose_3d and "S" in columns
    labels["has_pose_3d"] = np.full(rows, known)
    labels["pose_3d"] = (
        columns.numbers("S", "float32") if known else np.zeros((rows, 24, 4), np.float32)
    )
    labels["gender"] = np.full(rows, -1, np.int8)
    if "gender" in columns:
        codes = {"m": 0, "male": 0, "f": 1, "female": 1}
        texts, _ = columns.texts("gender")
        labels["gender"] = np.array([codes.get(text.lower(), -1) for text in texts], np.int8)
    calibrated = "img_focal" in columns and "img_center" in columns
    labels["has_camcalib"] = np.full(rows, calibrated)
    if calibrated:
        labels["img_focal"] = columns.numbers("img_focal", "float32")
        labels["img_center"] = columns.numbers("img_center", "float32")
    if all(key in columns for key in EXTRINSICS):
        labels |= {key: columns.numbers(key, "float32") for key in EXTRINSICS}
    if "orig_shape" in columns:
        labels["orig_shape"] = columns.numbers("orig_shape", "float64")
    return labels


def _read_smpl(columns: _Columns) -> dict[str, NDArray[Any]]:
    """Pose and betas; without a has_smpl key every row that has both has SMPL, as in ReFit."""
    rows = columns.rows
    known = "pose" in columns and "shape" in columns
    has_smpl = np.full(rows, float(known))
    if known and "has_smpl" in columns:
        has_smpl = columns.numbers("has_smpl", "float64")
    if not known:
        return {
            "pose": np.zeros((rows, 72), np.float32),
            "betas": np.zeros((rows, 10), np.float32),
            "has_smpl": np.zeros(rows, bool),
        }
    pose = columns.numbers("pose", "float32")
    betas = columns.numbers("shape", "float32")
    pose[has_smpl == 0] = 0.0
    betas[has_smpl == 0] = 0.0
    pose[np.isnan(has_smpl)] = np.nan  # neither yes nor no: the row is quarantined with its pose
    return {"pose": pose, "betas": betas, "has_smpl": has_smpl != 0}


def _fault_rows(
    source: Source, bad: NDArray[np.bool_], reason: str, detail: Callable[[int], str]
) -> None:
    for row in np.flatnonzero(bad):
        source.fault(int(row), reason, detail(int(row)))


def _check_labels(source: Source) -> None:
    """Quarantine rows whose box or labels are not usable numbers."""
    labels = source.labels
    with np.errstate(over="ignore", invalid="ignore"):
        side = box_side(labels["scale"])
        near = np.abs(np.column_stack([side, labels["center"]])) <= MAX_PIXELS
        bad_box = ~near.all(axis=1)  # NaN is not near either
    _fault_rows(
        source,
        bad_box,
        "bad_box",
        lambda row: f"center {labels['center'][row].tolist()}, scale {labels['scale'][row]}",
    )
    _fault_rows(
        source,
        ~bad_box & (side < MIN_BOX_SIDE),
        "bad_box",
        lambda row: f"box side {side[row]:.3g} px, must be at least {MIN_BOX_SIDE:.0f}",
    )
    for name, values in labels.items():
        if values.dtype.kind == "f" and name not in ("center", "scale"):
            bad = ~np.isfinite(values).reshape(source.rows, -1).all(axis=1)
            for row in np.flatnonzero(bad).tolist():
                source.fault(row, "nonfinite_label", f"{name} holds NaN or infinity")
    if "img_focal" in labels:
        focal = labels["img_focal"]
        _fault_rows(source, focal <= 0, "bad_camera", lambda row: f"img_focal {focal[row]:g}")
    if "orig_shape" in labels:
        stated = labels["orig_shape"]
        no_size = np.asarray(((stated < 1) | (stated > MAX_PIXELS)).any(axis=1))
        _fault_rows(
            source, no_size, "size_mismatch", lambda row: f"orig_shape says {stated[row].tolist()}"
        )


def _check_duplicates(source: Source) -> None:
    """Quarantine rows that repeat an earlier row in every label."""
    center, scale = source.labels["center"], source.labels["scale"]
    order = np.lexsort((scale, center[:, 1], center[:, 0]))
    box = np.column_stack([center, scale])[order]
    same = (box[1:] == box[:-1]).all(axis=1)
    first: dict[bytes, int] = {}
    candidates = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
    for row in candidates.tolist():
        digest = hashlib.sha256(source.paths[row].encode())
        for values in source.labels.values():
            digest.update(values[row].tobytes())
        original = first.setdefault(digest.digest(), row)
        if original != row:
            source.fault(row, "duplicate_row", f"the same as row {original} in every label")


def read_source(
    npz_path: str,
    root: str,
    *,
    use_pose_3d: bool,
    remaps: Sequence[Remap] = (),
    limit: int | None = None,
    keep: Sequence[Keep] = (),
) -> Source:
    """Read and check one npz, by path or URL. Only the first ``limit`` rows are considered.

    ``keep``: arrays that are carried along as they are.

    Raises:
        SourceError: a key is missing, or of another shape or kind than it must be.
        StorageError: the object store failed.
    """
    with closing(Npz(npz_path)) as npz:
        columns = _Columns(npz, limit)
        imgnames, undecodable = columns.texts("imgname")
        labels = _read_labels(columns, use_pose_3d=use_pose_3d)
        kept = read_kept(npz, keep, columns.total, columns.rows)
        sha256 = npz.sha256()
    known = [key for key in ROW_SHAPES if key in columns]
    paths = [frame_path(name, root, remaps) for name in imgnames]
    source = Source(
        npz=npz_path,
        sha256=sha256,
        total=columns.total,
        imgnames=imgnames,
        paths=[path or "" for path in paths],
        labels=labels,
        found=tuple(known),
        absent=tuple(key for key in ROW_SHAPES if key not in columns),
        unused=tuple(
            key for key in npz.entries if key not in ROW_SHAPES and key not in kept.columns
        ),
        kept=kept,
    )
    for row in undecodable:
        source.fault(row, "bad_imgname", "not valid UTF-8")
    for row, name in enumerate(imgnames):
        if len(name.encode()) > MAX_IMGNAME_BYTES:
            source.fault(row, "bad_imgname", f"more than {MAX_IMGNAME_BYTES} bytes")
    for row, path in enumerate(paths):
        if path is None:
            source.fault(row, "path_outside_root", "the name is empty or leads out of the root")
    _check_labels(source)
    _check_duplicates(source)
    return source
