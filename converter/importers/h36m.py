"""Imports Human3.6M's poses (CDF) and masks (MATLAB 7.3, which is HDF5). The formulas are those of
SPIN's ``h36m_train.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.importers.apart import Task, naming, read_apart
from refit_shard.converter.importers.boxes import box_of_extent, extent_of_mask
from refit_shard.converter.importers.found import Found, find_files
from refit_shard.converter.importers.gathered import Gathered
from refit_shard.converter.importers.importer import Importer, Tools
from refit_shard.converter.importers.joints17 import part_of, pose_3d_of
from refit_shard.shards_spec.errors import SourceError

Array = NDArray[np.float64]

SUBJECTS = (1, 5, 6, 7, 8)
JOINTS = 32
# Indexes among the 32 of the joints that are used, in the order of joints17; the first is the
# pelvis.
_TAKEN = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)
EVERY = 5
BOX_FACTOR = 0.9
MAX_MASK_PX = 1 << 26
_POSES = "MyPoseFeatures/D3_Positions_mono"
_NO_ACTION = "_ALL"


def _find(path: Path, _dataset: str | None) -> list[Found]:
    if not path.is_dir():
        return []
    return [
        found
        for subject in SUBJECTS
        for found in find_files(path, f"S{subject}/{_POSES}/*.cdf")
        if found.name.split(".")[0] != _NO_ACTION
    ]


@dataclass(frozen=True, kw_only=True)
class Sequence17:
    """The rows of one sequence of one camera.

    ``total``: number of all frames. ``frames`` (n,): numbers from 0 of the kept ones. ``extents``
    (n, 4): x0, y0, x1, y1 of the mask, px, the last two exclusive. ``points`` (n, 17, 2), px;
    ``points_mm`` (n, 17, 3), mm. ``no_mask``, ``empty``: numbers of frames that are left out
    because they have no mask, or an empty one.
    """

    total: int
    frames: NDArray[np.int64]
    extents: Array
    points: Array
    points_mm: Array
    no_mask: int
    empty: int


def read_poses(path: Path, sides: int) -> Array:
    """The 17 used joints (frames, 17, sides) of one of Human3.6M's CDF files; ``sides`` is 2 or 3.

    Raises:
        SourceError: the file is missing, or not one of Human3.6M's.
    """
    import cdflib  # noqa: PLC0415  (the extra)

    if not path.is_file():
        raise SourceError(f"{path}: missing; it belongs to the poses of the same name")
    with naming(path):
        values = np.asarray(cdflib.CDF(path).varget("Pose"))
    if values.ndim == 3 and len(values) == 1:  # one record of (frames, 32 * sides)
        values = values[0]
    if values.ndim != 2 or values.shape[1] != JOINTS * sides or values.dtype.kind != "f":
        raise SourceError(
            f"{path}: Pose must be numbers of shape (1, frames, {JOINTS * sides}), got "
            f"{values.dtype} {values.shape}"
        )
    joints = values.reshape(-1, JOINTS, sides)[:, _TAKEN]
    return joints.astype(np.float64)


def read_masks(path: Path) -> Iterator[NDArray[np.bool_] | None]:
    """Yields the mask (H, W) bool of every 5th frame.

    External links, external storage and virtual datasets are refused, because h5py would read other
    files through them.
    """
    import h5py  # noqa: PLC0415  (the extra)

    def plain(data: Any, what: str) -> Any:
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise SourceError(f"{path}: {what} is not stored in this file as plain data")
        return data

    with naming(path), h5py.File(path, "r", locking=False) as file:
        if not isinstance(file.get("Masks", getlink=True), h5py.HardLink):
            raise SourceError(f"{path}: Masks is missing, or is in another file")
        masks = plain(file["Masks"], "Masks")
        if masks.dtype != h5py.ref_dtype or masks.ndim != 2 or masks.shape[1] != 1:
            raise SourceError(f"{path}: Masks must be a column of references")
        for frame in range(0, len(masks), EVERY):
            mask = plain(file[masks[frame, 0]], f"mask {frame}")
            if mask.ndim != 2 or mask.size > MAX_MASK_PX or mask.dtype.kind not in "uibf":
                raise SourceError(f"{path}: mask {frame} is of shape {mask.shape}")
            yield mask[()].T == 1


def read_sequence(poses: Path, positions: Path, masks: Path) -> Sequence17:
    """One sequence of one camera: D3_Positions_mono, D2_Positions, ground_truth_bb.

    Raises:
        SourceError: a file is missing, or not one of Human3.6M's.
    """
    points_mm, points = read_poses(poses, 3), read_poses(positions, 2)
    if len(points) != len(points_mm):
        raise SourceError(f"{positions}: has {len(points)} frames, {poses} has {len(points_mm)}")
    if not masks.is_file():
        raise SourceError(f"{masks}: missing; the boxes of {poses} are computed from its masks")
    wanted = len(range(0, len(points), EVERY))
    extents = [
        None if mask is None else extent_of_mask(mask) for mask in islice(read_masks(masks), wanted)
    ]
    known = [number for number, extent in enumerate(extents) if extent is not None]
    frames = np.array(known, np.int64) * EVERY
    return Sequence17(
        total=len(points),
        frames=frames,
        extents=np.array([extents[number] for number in known], np.float64).reshape(-1, 4),
        points=points[frames],
        points_mm=points_mm[frames],
        no_mask=wanted - len(extents),
        empty=len(extents) - len(known),
    )


def _read(files: Sequence[Found], gathered: Gathered, tools: Tools) -> None:
    """Add the rows of all sequences, by subject and name. Frame i (from 0) gets the number
    i + 1.
    """
    tasks = []
    for found in files:
        subject = found.path.parents[2]
        mask = subject / "MySegmentsMat/ground_truth_bb" / f"{found.path.stem}.mat"
        files_of = (found.path, subject / "MyPoseFeatures/D2_Positions" / found.name, mask)
        tasks.append(
            Task(function=read_sequence, arguments=files_of, where=found.path, size=found.size)
        )
    for task, read in read_apart(tasks, workers=tools.workers):
        _add(task.arguments[0], read, gathered)
        gathered.on_bytes(task.size)
    gathered.lack("SPIN's script makes none", "openpose")
    gathered.lack("Human3.6M has no SMPL parameters", "pose", "shape", "has_smpl")


def _add(poses: Path, read: Sequence17, gathered: Gathered) -> None:
    """Add a sequence's rows."""
    parts = poses.stem.split(".")
    if len(parts) != 2:
        raise SourceError(f"{poses}: must be named ACTION.CAMERA.cdf")
    action, camera = parts[0].replace(" ", "_"), parts[1]
    stem = f"images/{poses.parents[2].name}_{action}.{camera}"
    center, scale = box_of_extent(read.extents[:, :2], read.extents[:, 2:], BOX_FACTOR)
    gathered.leave_out(
        f"passed over: 1 frame in {EVERY} is kept", read.total - len(range(0, read.total, EVERY))
    )
    gathered.leave_out("no mask", read.no_mask)
    gathered.leave_out("an empty mask", read.empty)
    gathered.add(
        imgname=np.array([f"{stem}_{frame + 1:06d}.jpg" for frame in read.frames], str),
        center=center,
        scale=scale,
        part=part_of(read.points),
        S=pose_3d_of(read.points_mm),
    )


IMPORTER = Importer(
    called={"h36m": (".",)},
    takes="the folder that holds Human3.6M's S1/MyPoseFeatures/D3_Positions_mono/*.cdf …",
    find=_find,
    read=_read,
    needs=("cdflib", "h5py"),
)
