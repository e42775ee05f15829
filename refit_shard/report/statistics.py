"""What the rows of a dataset hold, counted from index tables one after the other.

Nothing here draws or reads a file. Distributions are counted in bins of fixed edges, so memory does
not grow with the number of rows, and no row is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit_shard.shards_spec.fields import FIELD, numpy_view
from refit_shard.shards_spec.geometry import box_side

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Joints of SMPL's pose, in their order: JOINT_NAMES of the package smplx, without the hands of
# SMPL-H; the last two are SMPL's own.
SMPL_JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
    *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar"),
    *("right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist", "left_hand", "right_hand"),
)
BOX_EDGES = 2.0 ** (np.arange(8, 57) / 4)  # px: 4 to 16384 by quarters of an octave
ANGLE_EDGES = np.arange(181.0)  # degrees
SHAPE_EDGES = np.arange(-80, 81) / 10
VIEW_EDGES = np.arange(0.0, 181.0, 2.0)  # degrees
# Places in the frame, as shares of its width and height: a fiftieth a cell, a tenth beyond it.
_CELLS_A_FRAME = 50
PLACE_EDGES = np.arange(-5, 56) / _CELLS_A_FRAME


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many values fall between edges.

    ``counts`` (…, n): of the n bins between ``edges`` (n + 1,); a value beyond the edges counts in
    the first or the last bin. ``unusable``: values that are no finite numbers.
    """

    edges: Floats
    counts: Ints
    unusable: int = 0

    @property
    def total(self) -> int:
        """Values that were counted."""
        return int(self.counts.sum())

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """The values below which these shares lie, (…, len(shares)); NaN where there are none.

        They are right to within a bin: values are taken to lie evenly in their bins.
        """
        rows = self.counts.reshape(-1, self.counts.shape[-1])
        found = np.full((len(rows), len(shares)), np.nan)
        for row, counts in enumerate(rows):
            reached = np.cumsum(counts)
            if reached[-1]:
                wanted = np.maximum(np.array(shares) * reached[-1], 1e-9)
                at = np.searchsorted(reached, wanted)
                within = (wanted - (reached - counts)[at]) / counts[at]
                found[row] = self.edges[at] + within * np.diff(self.edges)[at]
        return found.reshape(*self.counts.shape[:-1], len(shares))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of the rows of one dataset.

    ``frames``: different imgnames of a shard, added up; all rows of a frame are in one shard.
    ``jpeg_bytes``: of the stored crops. ``box``: the box's side, source px, and ``box_range``, the
    least and the largest side (NaN without rows). ``places`` (60, 60): visible joints by y and x in
    the frame, see :data:`PLACE_EDGES`; ``joints``: how many there are, ``outside``: those that are
    not in the frame. ``visible`` (49,): rows in which each joint has a confidence above 0.
    ``smpl``, ``pose_3d``, ``camera``: rows that have them. ``gender``: male, female, unknown.
    ``angles`` (24, n): angle of each joint's rotation, degrees, and ``shape`` (10, n), betas, of
    the rows with SMPL parameters. ``view``: horizontal field of view, degrees, where the camera is
    known, and ``view_guessed`` where it is not.
    """

    rows: int
    frames: int
    jpeg_bytes: int
    box: Histogram
    box_range: tuple[float, float]
    places: Ints
    joints: int
    outside: int
    visible: Ints
    smpl: int
    pose_3d: int
    camera: int
    gender: tuple[int, int, int]
    angles: Histogram
    shape: Histogram
    view: Histogram
    view_guessed: Histogram

    def box_sides(self, shares: Sequence[float]) -> Floats:
        """Sides of the boxes below which these shares lie, px; within those that there are."""
        return np.clip(self.box.quantiles(shares), *self.box_range)


class _Counts:
    """A histogram that grows; ``rows`` of them beside each other."""

    def __init__(self, edges: Floats, rows: int = 1) -> None:
        self._edges = edges
        self._counts = np.zeros((rows, len(edges) - 1), np.int64)
        self._unusable = 0

    def add(self, values: Floats) -> None:
        """Count values (n, rows)."""
        rows, bins = self._counts.shape
        usable = np.isfinite(values)
        found = np.clip(np.searchsorted(self._edges, values, "right") - 1, 0, bins - 1)
        found += np.arange(rows) * bins
        self._counts += np.bincount(found[usable], minlength=rows * bins).reshape(rows, bins)
        self._unusable += int(usable.size - np.count_nonzero(usable))

    def result(self, *, flat: bool = False) -> Histogram:
        """What was counted; ``flat``: of the only row."""
        counts = self._counts[0] if flat else self._counts
        return Histogram(edges=self._edges, counts=counts, unusable=self._unusable)


def rotation_angles(pose: NDArray[np.float32]) -> Floats:
    """Angles of axis-angle rotations (n, joints * 3), rad: (n, joints) degrees, 0 to 180."""
    length = np.linalg.norm(
        pose.reshape(len(pose), pose.shape[1] // 3, 3).astype(np.float64), axis=2
    )
    turn = np.rad2deg(length) % 360.0
    return np.asarray(np.minimum(turn, 360.0 - turn), np.float64)


def field_of_view(width: Floats, focal: Floats) -> Floats:
    """Horizontal field of view of a pinhole camera, degrees; ``width`` and ``focal``: px."""
    return np.asarray(np.rad2deg(2.0 * np.arctan2(width / 2.0, focal)), np.float64)


class Counter:
    """Counts index tables; :meth:`result` are the statistics of all that were added."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(
            ("rows", "frames", "jpeg_bytes", "joints", "outside", "smpl", "pose_3d", "camera"), 0
        )
        self._range = [np.inf, -np.inf]
        self._places = np.zeros((len(PLACE_EDGES) - 1,) * 2, np.int64)
        self._visible = np.zeros(FIELD["keypoints"].shape[0], np.int64)
        self._gender = np.zeros(3, np.int64)
        self._box = _Counts(BOX_EDGES)
        self._angles = _Counts(ANGLE_EDGES, len(SMPL_JOINTS))
        self._shape = _Counts(SHAPE_EDGES, FIELD["betas"].size)
        self._views = {True: _Counts(VIEW_EDGES), False: _Counts(VIEW_EDGES)}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of an index table, or some of them."""

        def view(name: str) -> NDArray[np.generic]:
            return numpy_view(FIELD[name], batch.column(name))

        def count(**found: int) -> None:
            for name, value in found.items():
                self._sums[name] += value

        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # any numbers may come
            smpl = view("has_smpl").astype(bool)
            known = view("has_camcalib").astype(bool)
            count(
                rows=batch.num_rows,
                frames=len(pc.unique(batch.column("imgname"))),
                jpeg_bytes=int(view("jpg_length").sum(dtype=np.int64)),
                smpl=int(np.count_nonzero(smpl)),
                pose_3d=int(np.count_nonzero(view("has_pose_3d"))),
                camera=int(np.count_nonzero(known)),
            )
            self._add_boxes(box_side(view("scale").astype(np.float64)))
            self._add_joints(view("keypoints"), view("orig_shape").astype(np.float64))
            gender = view("gender").astype(np.int64)
            male, female = (np.count_nonzero(gender == code) for code in (0, 1))
            self._gender += (male, female, len(gender) - male - female)
            self._angles.add(rotation_angles(view("pose")[smpl].astype(np.float32)))
            self._shape.add(view("betas")[smpl].astype(np.float64))
            width = view("orig_shape")[:, 1].astype(np.float64)
            degrees = field_of_view(width, view("img_focal").astype(np.float64))
            for have, views in self._views.items():
                views.add(degrees[known == have][:, None])

    def _add_boxes(self, sides: Floats) -> None:
        self._box.add(sides[:, None])
        finite = sides[np.isfinite(sides)]
        if len(finite):
            low, high = self._range
            self._range = [min(low, float(finite.min())), max(high, float(finite.max()))]

    def _add_joints(self, keypoints: NDArray[np.generic], orig_shape: Floats) -> None:
        points = keypoints.astype(np.float64)
        visible = points[:, :, 2] > 0
        self._visible += np.count_nonzero(visible, axis=0)
        size = orig_shape[:, None, ::-1]  # W, H
        x, y = ((points[:, :, :2] + 0.5) / size)[visible].T
        inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
        self._sums["joints"] += len(x)
        self._sums["outside"] += len(x) - int(np.count_nonzero(inside))
        cells = len(PLACE_EDGES) - 1
        column, row = (
            np.floor((values - PLACE_EDGES[0]) * _CELLS_A_FRAME).astype(np.int64)
            for values in (x, y)
        )
        near = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
        found = row[near] * cells + column[near]
        self._places += np.bincount(found, minlength=cells**2).reshape(cells, cells)

    def result(self) -> Statistics:
        """What was counted."""
        low, high = self._range if self._range[0] <= self._range[1] else (np.nan, np.nan)
        male, female, unknown = self._gender.tolist()
        return Statistics(
            **self._sums,
            box=self._box.result(flat=True),
            box_range=(low, high),
            places=self._places,
            visible=self._visible,
            gender=(male, female, unknown),
            angles=self._angles.result(),
            shape=self._shape.result(),
            view=self._views[True].result(flat=True),
            view_guessed=self._views[False].result(flat=True),
        )
