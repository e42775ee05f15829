"""Plans 3DPW's validation subset, with the same rows as ReFit's ``subsample_3dpw.py``.

Some rows of the npz are drawn at random. Each gets a crop, ``imageCrops/…_<row>.jpg`` beside
``imageFiles``. The drawn rows of every key are written to a smaller npz that names those crops.
:mod:`refit_shard.converter.subset.work` carries out the plan.
"""

import posixpath
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.source import frame_path
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.geometry import box_side
from refit_shard.shards_spec.storage.paths import local_path, location
from refit_shard.shards_spec.values import hold, whole

FRAMES_FOLDER = "imageFiles"
CROPS_FOLDER = "imageCrops"
NAME_DTYPE = "<U80"
MAX_NAME = 80
_SUFFIX = ".jpg"

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class SubsetRequest:
    """The subset to make.

    Args:
        npz: path or URL of 3dpw_test's annotations.
        root: folder or URL of its frames.
        target: path of the npz to write.
        rows: number of rows to draw.
        seed: of the draw.
        workers: number of threads, None for one a core.

    Raises:
        UsageError: a value is out of its bounds.
    """

    npz: str
    root: str
    target: Path
    rows: int = 3000
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        hold(self, npz=location(self.npz, "npz"), root=location(self.root, "root"))
        hold(self, target=local_path(self.target, "target"))
        for name, low, high in (("rows", 1, 2**31), ("seed", 0, 2**32 - 1), ("workers", 0, 4096)):
            value = getattr(self, name)
            if value is not None or name != "workers":
                hold(self, **{name: whole(f"--{name}", value, low, high)})
        if self.target.resolve() == Path(self.npz).resolve():
            raise UsageError(
                f"{self.npz}: DATASET_FILES names one file for 3dpw_test and for 3dpw_test_sub, "
                "which would be overwritten; give 3dpw_test_sub an npz of its own"
            )


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One crop: row ``index`` of the subset, row ``row`` of the full npz.

    ``path``: of the JPEG below the root. ``cx``, ``cy``, ``side``: the box in pixels of the frame.
    ``stated``: the frame's (H, W) as the npz states it, else None.
    """

    index: int
    row: int
    path: str
    cx: float
    cy: float
    side: float
    stated: tuple[float, float] | None


@dataclass(frozen=True)
class SubsetPlan:
    """The drawn rows and their crops.

    ``columns``: the drawn rows of every key, unchanged. ``crops``: by the path of their frame below
    the root.
    """

    request: SubsetRequest
    source_rows: int
    columns: Columns
    crops: dict[str, list[Crop]]

    @property
    def rows(self) -> int:
        """Number of rows of the subset."""
        return len(self.columns["imgname"])


def subset_rows(total: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The ``rows`` of ``total`` rows that ReFit draws, sorted. Numpy's legacy generator is used,
    because ReFit uses it.
    """
    drawn = np.random.RandomState(seed).permutation(total)[:rows]
    return np.sort(drawn).astype(np.int64)


def crop_path(path: str, row: int) -> str | None:
    """The path of the crop of ``row``, from its frame's path; None if the frame's path does not
    have 3DPW's form. Only the first folder and the suffix are changed.
    """
    folder, _, rest = path.partition("/")
    stem, suffix = rest[: -len(_SUFFIX)], rest[-len(_SUFFIX) :]
    if folder != FRAMES_FOLDER or suffix.lower() != _SUFFIX or not posixpath.basename(stem):
        return None
    return f"{CROPS_FOLDER}/{stem}_{row}{_SUFFIX}"


def read_columns(npz_path: str, rows: int, seed: int) -> tuple[Columns, NDArray[np.int64], int]:
    """The drawn rows of every key of the npz; the numbers of these rows; and the number of all
    rows.

    Raises:
        SourceError: a key is missing, cannot be read, or has another number of rows.
    """
    with closing(Npz(npz_path)) as npz:
        for key in ("imgname", "center", "scale"):
            if key not in npz.entries:
                found = ", ".join(npz.entries) or "none"
                raise SourceError(f"{npz_path}: key {key!r} is missing; found: {found}")
        total = (npz.entries["imgname"].shape or (0,))[0]
        if total == 0:
            raise SourceError(f"{npz_path}: holds no rows")
        drawn = subset_rows(total, rows, seed)
        columns = {}
        for key, entry in npz.entries.items():
            if entry.shape[:1] != (total,):
                raise SourceError(
                    f"{npz_path}: {key!r} must have {total} rows like 'imgname', got shape "
                    f"{entry.shape}; save the npz without it"
                )
            columns[key] = npz.read(key)[drawn]
    return columns, drawn, total


def _names(columns: Columns, where: str) -> list[str]:
    values = columns["imgname"]
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise SourceError(
            f"{where}: 'imgname' must be strings of shape (N,), got {values.dtype} "
            f"of shape {values.shape}"
        )
    names = []
    for row, value in enumerate(values.tolist()):
        try:  # a numpy string may contain half a surrogate pair
            data = value if isinstance(value, bytes) else value.encode()
            names.append(data.decode())
        except UnicodeError as error:
            raise SourceError(
                f"{where}: imgname {value!r} of drawn row {row}: not UTF-8"
            ) from error
    return names


def _numbers(columns: Columns, key: str, width: int, where: str) -> NDArray[np.float64]:
    """A column as float64 (rows, width); numbers that are stored as strings are parsed."""
    values = columns[key]
    try:
        return values.astype(np.float64).reshape(len(values), width)
    except (ValueError, TypeError) as error:
        raise SourceError(
            f"{where}: {key!r} must be {width} numbers a row, got {values.dtype} "
            f"of shape {values.shape} ({error})"
        ) from error


def plan_subset(request: SubsetRequest) -> SubsetPlan:
    """Draw the rows and plan their crops. No frame is read.

    Raises:
        SourceError: the npz cannot be used, or a drawn name does not have 3DPW's form.
    """
    where = request.npz
    columns, drawn, total = read_columns(where, request.rows, request.seed)
    names = _names(columns, where)
    centers = _numbers(columns, "center", 2, where)
    sides = box_side(_numbers(columns, "scale", 1, where)[:, 0])
    stated = _numbers(columns, "orig_shape", 2, where) if "orig_shape" in columns else None
    crops: dict[str, list[Crop]] = {}
    for index, (row, name) in enumerate(zip(drawn.tolist(), names, strict=True)):
        frame = frame_path(name, request.root, ())
        path = crop_path(frame, row) if frame is not None else None
        if frame is None or path is None:
            raise SourceError(
                f"{where}: row {row}: imgname {name!r} must be {FRAMES_FOLDER}/SEQUENCE/NAME.jpg "
                "below PW3D_ROOT; is this 3dpw_test's npz?"
            )
        if len(path) > MAX_NAME:
            raise SourceError(
                f"{where}: row {row}: the crop's name {path!r} has {len(path)} characters, "
                f"imgname holds {MAX_NAME} ({NAME_DTYPE}); shorten the sequence's folder"
            )
        shape = None if stated is None else (float(stated[index][0]), float(stated[index][1]))
        crops.setdefault(frame, []).append(
            Crop(
                index=index,
                row=row,
                path=path,
                cx=float(centers[index, 0]),
                cy=float(centers[index, 1]),
                side=float(sides[index]),
                stated=shape,
            )
        )
    return SubsetPlan(request, total, columns, crops)
