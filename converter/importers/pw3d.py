"""Imports 3DPW's ``sequenceFiles``, one pickle for each sequence. The formulas are those of SPIN's
``pw3d.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.body_models.plain_pickle import PlainArray, read_plain_stream
from refit_shard.converter.importers.boxes import box_of_points
from refit_shard.converter.importers.found import Found, find_file, find_files, find_members
from refit_shard.converter.importers.gathered import Gathered, fits
from refit_shard.converter.importers.importer import Importer, Tools
from refit_shard.converter.importers.rotations import are_rotations, axis_angles, matrices_of
from refit_shard.shards_spec.errors import SourceError, UsageError

Array = NDArray[np.float64]

BOX_FACTOR = 1.2
BETAS = 10
LONGEST_NAME = 255  # of a folder
_SPLITS = {"3dpw": "train", "3dpw_test": "test"}
_ALL_SPLITS = ("train", "validation", "test")


def _find(path: Path, dataset: str | None) -> list[Found]:
    if path.is_file():
        return [find_file(path)] if path.suffix == ".pkl" else _split_of(_members(path), dataset)
    here = find_files(path, "*.pkl")
    return here or _split_of(_below(path), dataset)


def _members(path: Path) -> dict[str, list[Found]]:
    """The pickles of a zip archive, by their folder."""
    folders: dict[str, list[Found]] = {}
    for found in find_members(path, ".pkl"):
        folder = ("/" + str(found.member)).split("/")[-2]
        folders.setdefault(folder, []).append(found)
    return folders


def _below(path: Path) -> dict[str, list[Found]]:
    """The pickles of each split below 3DPW's root, or below its folder sequenceFiles."""
    folders: dict[str, list[Found]] = {}
    for split in _ALL_SPLITS:
        found = find_files(path, f"{split}/*.pkl") or find_files(
            path, f"sequenceFiles/{split}/*.pkl"
        )
        if found:
            folders[split] = found
    return folders


def _split_of(folders: Mapping[str, list[Found]], dataset: str | None) -> list[Found]:
    """The pickles of the split that a dataset is made from.

    Raises:
        UsageError: the split is missing, or there are several and no dataset was asked for.
    """
    split = _SPLITS.get(dataset or "", "")
    if split and split in folders:
        return folders[split]
    others = sorted({*folders} & {*_ALL_SPLITS})
    if split and others:
        raise UsageError(
            f"3DPW's {split}, from which {dataset} is made, is missing; found: "
            f"{', '.join(others)}; is the download complete? To import another split as {dataset}, "
            "give its folder"
        )
    if len(folders) > 1:
        raise UsageError(
            f"3DPW's pickles are in several folders: {', '.join(sorted(folders))}: pass --dataset "
            "3dpw for train or --dataset 3dpw_test for test, or give one of the folders"
        )
    return next(iter(folders.values()), [])


def _array(value: Any, what: str, shape: tuple[int, ...]) -> Array:
    """An array as float64. ``what``: its name, for errors. ``shape``: the expected one, with -1 for
    any length.
    """
    array = value.array() if isinstance(value, PlainArray) else value
    if not isinstance(array, np.ndarray):
        raise SourceError(f"{what} must be an array")
    if not fits(array.shape, shape) or array.dtype.kind not in "fiub":
        raise SourceError(f"{what} must be numbers of shape {shape}, got {array.shape}")
    return array.astype(np.float64)


def _people(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sequence's values for each person, by key."""
    columns: dict[str, Any] = {}
    for key in ("poses", "betas", "poses2d", "campose_valid", "genders"):
        values = content.get(key)
        columns[key] = list(values.array()) if isinstance(values, PlainArray) else values
        if not isinstance(columns[key], (list, tuple)):
            raise SourceError(f"{key} must be a list with one entry for each person")
    counts = {key: len(values) for key, values in columns.items()}
    if len(set(counts.values())) > 1:
        raise SourceError(f"its lists have different numbers of people: {counts}")
    return [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]


def _add_person(
    person: Mapping[str, Any], cameras: Array, names: NDArray[np.str_], gathered: Gathered
) -> None:
    """Add one person's rows. ``cameras`` (frames, 3, 3): rotations from the world to the camera."""
    frames = len(names)
    pose = _array(person["poses"], "poses", (frames, 72))
    shape = _array(person["betas"], "betas", (-1,))[:BETAS]
    points = _array(person["poses2d"], "poses2d", (frames, 3, 18)).transpose(0, 2, 1)
    valid = _array(person["campose_valid"], "campose_valid", (frames,)) != 0
    if len(shape) != BETAS:
        raise SourceError(f"betas must be at least {BETAS}, got {len(shape)}")
    if person["genders"] not in ("m", "f"):
        raise SourceError("genders must be 'm' or 'f'")
    seen = points[:, :, 2] > 0
    kept = np.flatnonzero(valid & seen.any(axis=1))
    if not are_rotations(cameras[kept]).all():
        raise SourceError("cam_poses of a valid frame is not a rotation")
    gathered.leave_out("the camera's pose is not valid", int((~valid).sum()))
    gathered.leave_out("no joint seen", int(valid.sum()) - len(kept))
    center, scale = box_of_points(points[kept, :, :2], seen[kept], BOX_FACTOR)
    pose = pose[kept]
    pose[:, :3] = axis_angles(cameras[kept] @ matrices_of(pose[:, :3]))
    gathered.add(
        imgname=names[kept],
        center=center,
        scale=scale,
        pose=pose,
        shape=np.tile(shape, (len(kept), 1)),
        gender=np.full(len(kept), person["genders"], "U1"),
    )


def _add_sequence(content: Any, gathered: Gathered) -> None:
    """Add the rows of all people of a sequence.

    Raises:
        SourceError: the content is not a sequence of 3DPW.
    """
    if not isinstance(content, dict):
        raise SourceError("must hold a dictionary")
    sequence = content.get("sequence")
    if not isinstance(sequence, str) or "/" in sequence or not 0 < len(sequence) <= LONGEST_NAME:
        raise SourceError(f"sequence must be its name, got {sequence!r:.40}")
    cameras = _array(content.get("cam_poses"), "cam_poses", (-1, 4, 4))[:, :3, :3]
    frames = range(len(cameras))
    names = np.array([f"imageFiles/{sequence}/image_{frame:05d}.jpg" for frame in frames], str)
    for person in _people(content):
        _add_person(person, cameras, names, gathered)


def _read(files: Sequence[Found], gathered: Gathered, _tools: Tools) -> None:
    """Add the rows of all files: sequences by name, then people, then frames, in order. SPIN takes
    the sequences in the order in which the machine lists them.
    """
    for found in files:
        with found.open() as stream:
            content = read_plain_stream(stream, found.where)
        try:
            _add_sequence(content, gathered)
        except SourceError as error:
            raise SourceError(f"{found.where}: not a sequence of 3DPW: {error}") from error
        gathered.on_bytes(found.size)
    why = "SPIN's script makes none for 3DPW: they would be the joints of a mesh"
    gathered.lack(why, "openpose", "part", "S")


IMPORTER = Importer(
    called=dict.fromkeys(("3dpw", "3dpw_test"), ("sequenceFiles.zip", "sequenceFiles")),
    takes="3DPW's sequenceFiles.zip, its folder sequenceFiles, or one of train, validation, test",
    find=_find,
    read=_read,
)
