"""Statistics of the rows of a dataset, counted from one index table after another.

This module neither draws nor reads files. Distributions are counted in bins with fixed edges, so
memory does not grow with the number of rows, and every row is counted.
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

# The 24 joints of SMPL's pose in order: JOINT_NAMES of the package smplx without SMPL-H's hands,
# then SMPL's two hands.
SMPL_JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
    *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar"),
    *("right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist", "left_hand", "right_hand"),
)
BOX_EDGES = 2.0 ** (np.arange(8, 57) / 4)  # px: 4 to 16384, four bins for each doubling
ANGLE_EDGES = np.arange(181.0)  # degrees
SHAPE_EDGES = np.arange(-80, 81) / 10
VIEW_EDGES = np.arange(0.0, 181.0, 2.0)  # degrees
# Positions as shares of the frame's width and height: cells of 1/50, up to 1/10 outside the frame.
_CELLS_A_FRAME = 50
PLACE_EDGES = np.arange(-5, 56) / _CELLS_A_FRAME


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values in bins.

    Attributes:
        edges: (n + 1,) edges of the n bins, ascending.
        counts: (…, n) values in each bin; a value beyond the edges counts in the first or last bin.
        unusable: the number of values that are not finite, which are not counted.
    """

    edges: Floats
    counts: Ints
    unusable: int = 0

    @property
    def total(self) -> int:
        """The number of counted values."""
        return int(self.counts.sum())

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """Quantiles for these shares in 0 … 1, (…, len(shares)); NaN if no value was counted.

        They are exact to within a bin: values are assumed to be spread evenly in each bin.
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
    """Statistics of the rows of one dataset.

    Attributes:
        rows: the number of rows.
        frames: distinct imgnames, summed over shards; all rows of a frame are in one shard.
        jpeg_bytes: size of the stored crops.
        box: side of the box in the source frame, px.
        box_range: smallest and largest side of the box, px; NaN without rows.
        places: (60, 60) visible joints by y and x in the frame, in cells of :data:`PLACE_EDGES`.
        joints: the number of visible joints.
        outside: the number of visible joints that are outside of their frames.
        visible: (49,) rows in which each joint has a confidence above 0.
        smpl: rows with SMPL parameters.
        pose_3d: rows with 3D joints.
        camera: rows whose camera is known.
        gender: rows with gender male, female, unknown.
        angles: (24, n) angle of each SMPL joint's rotation, degrees; rows with SMPL parameters
            only.
        shape: (10, n) betas; rows with SMPL parameters only.
        view: horizontal field of view of known cameras, degrees.
        view_guessed: horizontal field of view of guessed cameras, degrees.
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
        """Quantiles of the box's side for these shares, px, limited to :attr:`box_range`."""
        return np.clip(self.box.quantiles(shares), *self.box_range)


class _Counts:
    """One or more histograms (``rows``) with the same edges, to which values are added."""

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
        """The histogram; ``counts`` is (rows, n), or (n,) of a single row with ``flat``."""
        counts = self._counts[0] if flat else self._counts
        return Histogram(edges=self._edges, counts=counts, unusable=self._unusable)


def rotation_angles(pose: NDArray[np.float32]) -> Floats:
    """Angles of axis-angle rotations, (n, joints) degrees in 0 … 180; ``pose``: (n, joints * 3)
    rad.
    """
    length = np.linalg.norm(
        pose.reshape(len(pose), pose.shape[1] // 3, 3).astype(np.float64), axis=2
    )
    turn = np.rad2deg(length) % 360.0
    return np.asarray(np.minimum(turn, 360.0 - turn), np.float64)


def field_of_view(width: Floats, focal: Floats) -> Floats:
    """Horizontal field of view of a pinhole camera, degrees; ``width`` and ``focal``: px."""
    return np.asarray(np.rad2deg(2.0 * np.arctan2(width / 2.0, focal)), np.float64)


class Counter:
    """Counts the rows of index tables; :meth:`result` returns the statistics of all added rows."""

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
        """Count all rows of ``batch``: an index table, or some rows of it."""

        def view(name: str) -> NDArray[np.generic]:
            return numpy_view(FIELD[name], batch.column(name))

        def count(**found: int) -> None:
            for name, value in found.items():
                self._sums[name] += value

        # Labels may be huge or not finite.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
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
        """The statistics of all added rows."""
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
