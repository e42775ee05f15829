"""Checks the arrays of a SPIN npz and reads them a few MB of rows at a time."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.npz import Npz
from refit_shard.shards_spec.errors import SourceError
from refit_shard.shards_spec.fields import EXTRINSICS, FIELD

# Row shapes of the keys that are read.
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
_GENDERS = {"m": 0, "male": 0, "f": 1, "female": 1}


class Part:
    """A run of rows of all arrays that are read. ``where``: the npz, for errors."""

    def __init__(self, where: str, values: Mapping[str, NDArray[Any]]) -> None:
        self._where = where
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def numbers(self, key: str) -> NDArray[Any]:
        """A numeric column. Numbers that are stored as strings are parsed; other strings
        become NaN.
        """
        values = self._values[key]
        if values.dtype.kind in "US":
            values = _parse_numbers(values)
        if values.dtype.kind not in "fiub":
            raise SourceError(f"{self._where}: {key!r} must be numbers, got dtype {values.dtype}")
        return values

    def texts(self, key: str) -> list[str | bytes]:
        """A column of strings."""
        values = self._values[key]
        if values.dtype.kind not in "US":
            raise SourceError(f"{self._where}: {key!r} must be strings, got dtype {values.dtype}")
        texts: list[str | bytes] = values.tolist()
        return texts


class Columns:
    """Reads the arrays of an npz.

    ``total``: number of rows of the npz. ``rows``: number of rows that are used, the first
    ``limit``. ``keys``: names of the arrays that are read.

    Raises:
        SourceError: a key is missing, or its array has a wrong shape.
    """

    def __init__(self, npz: Npz, limit: int | None, *, use_pose_3d: bool) -> None:
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
        self.keys = tuple(key for key in ROW_SHAPES if self._is_used(key, use_pose_3d))
        for key in self.keys:
            self._check_shape(key)

    def _is_used(self, key: str, use_pose_3d: bool) -> bool:
        together = {
            "pose": ("pose", "shape"),
            "shape": ("pose", "shape"),
            "has_smpl": ("has_smpl", "pose", "shape"),
            "img_focal": ("img_focal", "img_center"),
            "img_center": ("img_focal", "img_center"),
            **dict.fromkeys(EXTRINSICS, EXTRINSICS),
        }
        there = all(other in self.npz.entries for other in together.get(key, (key,)))
        return there and (use_pose_3d or key != "S")

    def _check_shape(self, key: str) -> None:
        """Check an array's shape; (N, 1) is accepted for (N,), and flattened rows too."""
        found = self.npz.entries[key].shape
        expected = (self.total, *ROW_SHAPES[key])
        if found not in {expected, (self.total, int(np.prod(ROW_SHAPES[key], dtype=int)))}:
            raise SourceError(f"{self.npz.path}: {key!r} must have shape {expected}, got {found}")

    def parts(self) -> Iterator[Part]:
        """Yields the rows that are used, a few MB at a time.

        The rest of the arrays is read afterwards, so that their checksums are verified.
        """
        count = self.npz.rows_at_a_time(self.keys)
        slices = {key: self.npz.slices(key, count) for key in self.keys}
        for begin in range(0, self.rows, count):
            rows = min(count, self.rows - begin)
            values = {
                key: next(slices[key])[:rows].reshape(rows, *ROW_SHAPES[key]) for key in self.keys
            }
            yield Part(self.npz.path, values)
        for rest in slices.values():
            for _ in rest:
                pass


def label_dtype(keys: Collection[str]) -> np.dtype[np.void]:
    """The dtype of a row's labels for an npz with these keys: columns of the field table, and
    ``orig_shape`` as in the npz.
    """
    names = ["center", "scale", "keypoints", "pose", "betas", "has_smpl"]
    names += ["has_pose_3d", "pose_3d", "gender", "has_camcalib"]
    names += [key for key in ("img_focal", "img_center", *EXTRINSICS) if key in keys]
    kinds = [(name, FIELD[name].dtype, FIELD[name].shape) for name in names]
    if "orig_shape" in keys:
        kinds.append(("orig_shape", "float64", (2,)))
    return np.dtype(kinds)


def read_labels(part: Part, dtype: np.dtype[np.void], rows: int) -> NDArray[np.void]:
    """The labels of a part's ``rows`` rows. Labels that the npz does not have are 0, gender -1."""
    labels = np.zeros(rows, dtype)
    with np.errstate(
        over="ignore"
    ):  # values too large for a column become inf, which is found later
        for name, key in (
            *((name, name) for name in ("center", "scale", "img_focal", "img_center")),
            *(("pose_3d", "S"), ("orig_shape", "orig_shape")),
            *((name, name) for name in EXTRINSICS),
        ):
            if key in part:
                labels[name] = part.numbers(key)
        for key, joints in (("openpose", slice(25)), ("part", slice(25, None))):
            if key in part:
                labels["keypoints"][:, joints] = part.numbers(key)
        if "pose" in part:
            _read_smpl(part, labels)
    labels["has_pose_3d"] = "S" in part
    labels["has_camcalib"] = "img_focal" in part
    labels["gender"] = -1
    if "gender" in part:
        labels["gender"] = [_GENDERS.get(_plain(text).lower(), -1) for text in part.texts("gender")]
    return labels


def _read_smpl(part: Part, labels: NDArray[np.void]) -> None:
    """Set pose, betas and has_smpl. Without a key has_smpl every row has SMPL, as in ReFit."""
    has_smpl = np.ones(len(labels))
    if "has_smpl" in part:
        has_smpl = part.numbers("has_smpl").astype(np.float64)
    for name, key in (("pose", "pose"), ("betas", "shape")):
        labels[name] = part.numbers(key)
        labels[name][has_smpl == 0] = 0.0
    labels["pose"][np.isnan(has_smpl)] = np.nan  # so that the row is quarantined
    labels["has_smpl"] = has_smpl != 0


def _plain(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


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
