"""Imports MPI-INF-3DHP's ``annot.mat`` files, one for each sequence. The formulas are those of
SPIN's ``mpi_inf_3dhp.py`` (training data).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.importers.apart import Task, naming, read_apart
from refit_shard.converter.importers.boxes import box_of_points
from refit_shard.converter.importers.found import Found, find_files
from refit_shard.converter.importers.gathered import Gathered
from refit_shard.converter.importers.importer import Importer, Tools
from refit_shard.converter.importers.joints17 import part_of, pose_3d_of
from refit_shard.shards_spec.errors import SourceError

Array = NDArray[np.float64]

CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
JOINTS = 28
# Indexes among the 28 of the joints that are used, in the order of joints17; the first is the
# pelvis.
_TAKEN = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
FRAME_PX = 2048
BOX_FACTOR = 1.2
EVERY = 10
_V73 = b"MATLAB 7.3"


def _find(path: Path, _dataset: str | None) -> list[Found]:
    return find_files(path, "S[1-8]/Seq[12]/annot.mat") if path.is_dir() else []


def read_cameras(path: Path) -> list[tuple[Array, Array]]:
    """The used joints for each of CAMERAS: (frames, 17, 2), px, and (frames, 17, 3), mm.

    Raises:
        SourceError: the file is not an annot.mat.
    """
    from scipy.io import loadmat  # noqa: PLC0415  (the extra)

    with path.open("rb") as stream:
        if stream.read(len(_V73)) == _V73:
            raise SourceError(
                f"{path}: saved in MATLAB's format 7.3; the distributed file is of format 5: "
                "download it again, or save it with -v7"
            )
    with naming(path):
        found = loadmat(path, variable_names=["annot2", "annot3"])
    return [
        (_joints(found, "annot2", camera, 2, path), _joints(found, "annot3", camera, 3, path))
        for camera in CAMERAS
    ]


def _joints(found: dict[str, Any], key: str, camera: int, sides: int, path: Path) -> Array:
    """The used joints of one camera (frames, 17, sides)."""
    cells = found.get(key)
    if not isinstance(cells, np.ndarray) or cells.ndim != 2 or len(cells) <= camera:
        raise SourceError(f"{path}: {key} must be a cell for each of 14 cameras")
    values = cells[camera, 0]
    if (
        not isinstance(values, np.ndarray)
        or values.dtype.kind not in "fiu"
        or values.ndim != 2
        or values.shape[1] != JOINTS * sides
    ):
        shape = getattr(values, "shape", type(values).__name__)
        raise SourceError(
            f"{path}: {key} of camera {camera} must be numbers of shape (frames, "
            f"{JOINTS * sides}), got {shape}"
        )
    joints = values.reshape(-1, JOINTS, sides)[:, _TAKEN]
    return joints.astype(np.float64)


def _add_camera(
    folder: str, points: Array, points_mm: Array, gathered: Gathered, counted: int
) -> int:
    """Add one camera's rows, of which every 10th is kept.

    ``counted``: number of rows before this camera that have all joints inside the frame. Returns
    that number with this camera's rows added.
    """
    inside = ((points >= 0) & (points < FRAME_PX)).all(axis=(1, 2))
    frames = np.flatnonzero(inside)
    kept = frames[(counted + np.arange(len(frames))) % EVERY == 0]
    gathered.leave_out(f"a joint outside the {FRAME_PX} px", int((~inside).sum()))
    gathered.leave_out(f"passed over: 1 row in {EVERY} is kept", len(frames) - len(kept))
    chosen = points[kept]
    center, scale = box_of_points(chosen, np.ones(chosen.shape[:2], bool), BOX_FACTOR)
    gathered.add(
        imgname=np.array([f"{folder}/frame_{frame + 1:06d}.jpg" for frame in kept], str),
        center=center,
        scale=scale,
        part=part_of(chosen),
        S=pose_3d_of(points_mm[kept]),
    )
    return counted + len(frames)


def _read(files: Sequence[Found], gathered: Gathered, tools: Tools) -> None:
    """Add the rows of all sequences. Row i (from 0) of a camera's annotations is frame i + 1 of its
    video. SPIN matches annotations to frames in the order in which the machine lists the folder;
    here frames are in order. Every 10th row is kept, counted over all sequences: the 1st, 11th, …
    """
    places = ["/".join(found.path.parts[-3:-1]) for found in files]
    tasks = [
        Task(function=read_cameras, arguments=(found.path,), where=found.path, size=found.size)
        for found in files
    ]
    counted = 0
    for place, (task, cameras) in zip(
        places, read_apart(tasks, workers=tools.workers), strict=True
    ):
        for camera, (points, points_mm) in zip(CAMERAS, cameras, strict=True):
            if len(points) != len(points_mm):
                raise SourceError(
                    f"{task.where}: camera {camera} has {len(points)} frames in annot2 and "
                    f"{len(points_mm)} in annot3"
                )
            folder = f"{place}/imageFrames/video_{camera}"
            counted = _add_camera(folder, points, points_mm, gathered, counted)
        gathered.on_bytes(task.size)
    if len(files) < 16:
        gathered.notes.append(
            f"{len(files)} of 16 sequences exist ({', '.join(places)}); every 10th row is kept, so "
            "other rows are kept than with all sequences"
        )
    gathered.lack("annot.mat has none; SPIN takes them from OpenPose", "openpose")
    gathered.lack("annot.mat has none; SPIN adds its own fits", "pose", "shape", "has_smpl")


IMPORTER = Importer(
    called={"mpi-inf-3dhp": (".",)},
    takes="the folder that holds MPI-INF-3DHP's S1/Seq1/annot.mat …",
    find=_find,
    read=_read,
)
