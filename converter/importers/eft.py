"""Imports EFT's fits to COCO and MPII, each one JSON file. The formulas are those of ReFit's
``eft2spin.py``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.source import MAX_IMGNAME_BYTES
from refit_shard.converter.importers.found import Found, find_file
from refit_shard.converter.importers.gathered import Gathered
from refit_shard.converter.importers.importer import Importer, Tools
from refit_shard.converter.importers.json_stream import JsonStream
from refit_shard.converter.importers.rotations import are_rotations, axis_angles
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.files import refuse_mistaken

OPENPOSE_JOINTS = 25
# Shapes in an entry; keypoints are x, y, confidence of OpenPose's 25 and SPIN's 24 joints.
_SHAPES: dict[str, tuple[int, ...]] = {
    "bbox_center": (2,),
    "bbox_scale": (),
    "gt_keypoint_2d": (49, 3),
    "parm_pose": (24, 3, 3),
    "parm_shape": (10,),
}
_BATCH = 512
# Dataset by the beginning of ``meta.dbname``: COCO2014-All, COCO2014-Part, COCO2014-Val; MPII.
_OTHERS = "; for other annotations, COCO's own too, see docs/guides/own-data.md"
_BASES = {"COCO2014": "coco", "MPII": "mpii"}

Batch = dict[str, NDArray[Any]]


def _find(path: Path, _dataset: str | None) -> list[Found]:
    return [find_file(path)] if path.is_file() and path.suffix.lower() == ".json" else []


def _folder(dataset: str, name: str) -> str:
    """The folder of an image below the dataset's root."""
    if dataset == "mpii":
        return "images/"
    return "val2014/" if name.startswith("COCO_val2014_") else "train2014/"


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_IMGNAME_BYTES


def _check(entry: Any, number: int) -> None:
    """Raise a ValueError that says what is wrong with an entry."""
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} is not an object")
    if not _is_name(entry.get("imageName")):
        raise ValueError(f"entry {number} has no imageName, or one that is not a file's name")
    for key, shape in _SHAPES.items():
        try:
            found = np.array(entry[key], np.float64).shape
        except KeyError:
            raise ValueError(f"entry {number} has no {key}") from None
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"entry {number}: {key} must be numbers of shape {shape}") from None
        if found != shape:
            raise ValueError(f"entry {number}: {key} must have shape {shape}, got {found}")
    if not are_rotations(np.array(entry["parm_pose"], np.float64)).all():
        raise ValueError(f"entry {number}: parm_pose holds matrices that are not rotations")


def _batch(entries: Sequence[Any], first: int) -> Batch:
    """Entries as arrays. ``first``: number of the first one, for errors.

    Raises:
        ValueError: an entry does not have EFT's form; the error names it.
    """
    try:
        found: Batch = {
            key: np.array([entry[key] for entry in entries], np.float64) for key in _SHAPES
        }
        names = [entry["imageName"] for entry in entries]
        good = all(map(_is_name, names)) and all(
            found[key].shape == (len(entries), *shape) for key, shape in _SHAPES.items()
        )
        good = good and bool(are_rotations(found["parm_pose"]).all())
    except (KeyError, TypeError, ValueError, OverflowError):
        good = False
    if not good:
        for number, entry in enumerate(entries, start=first):
            _check(entry, number)
    return {**found, "imageName": np.array(names)}


def _batches(stream: JsonStream, meta: dict[str, Any]) -> Iterator[Batch]:
    """Yields the entries of ``data`` as arrays, some at a time; other keys are put into
    ``meta``.
    """
    entries: list[Any] = []
    done = 0
    for key, value in stream.members("data"):
        if key != "data":
            meta[key] = value
            continue
        entries.append(value)
        if len(entries) == _BATCH:
            yield _batch(entries, done)
            done += len(entries)
            entries.clear()
    if entries:
        yield _batch(entries, done)


def _dataset(meta: dict[str, Any], where: str) -> str:
    """The dataset that ``meta.dbname`` names."""
    stated = meta.get("meta")
    dbname = stated.get("dbname") if isinstance(stated, dict) else None
    for base, dataset in _BASES.items():
        if isinstance(dbname, str) and dbname.startswith(base):
            return dataset
    raise SourceError(
        f"{where}: meta.dbname must begin with one of {', '.join(_BASES)}, got {dbname!r:.60}; "
        f"EFT's fits to other datasets cannot be imported{_OTHERS}"
    )


def _read_one(found: Found, gathered: Gathered) -> tuple[str, list[Batch]]:
    meta: dict[str, Any] = {}
    with found.open() as stream:
        refuse_mistaken(stream, found.where)
        try:
            batches = list(_batches(JsonStream(stream, gathered.on_bytes), meta))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{found.where}: not EFT's json ({error!s:.200}){_OTHERS}") from error
    return _dataset(meta, found.where), batches


def _read(files: Sequence[Found], gathered: Gathered, _tools: Tools) -> None:
    """Add the rows of all files. ``pose`` is computed from EFT's matrices, as axis-angle of at most
    pi, in double precision; ReFit's script uses single precision.
    """
    for number, found in enumerate(files):
        dataset, batches = _read_one(found, gathered)
        if number and dataset != gathered.dataset:
            raise UsageError(
                f"{found.where} is of {dataset!r}, {files[0].where} of {gathered.dataset!r}: "
                "import each into its own npz"
            )
        gathered.dataset = dataset
        for batch in batches:
            points, count = batch["gt_keypoint_2d"], len(batch["imageName"])
            names = [_folder(dataset, name) + name for name in batch["imageName"].tolist()]
            gathered.add(
                imgname=names,
                center=batch["bbox_center"],
                scale=batch["bbox_scale"],
                openpose=points[:, :OPENPOSE_JOINTS],
                part=points[:, OPENPOSE_JOINTS:],
                pose=axis_angles(batch["parm_pose"]).reshape(count, -1),
                shape=batch["parm_shape"],
                has_smpl=np.ones(count, np.int64),
            )
    gathered.lack("EFT has no 3D joints", "S")


IMPORTER = Importer(
    called={"coco": ("COCO2014-All*.json", "COCO2014-*.json"), "mpii": ("MPII*.json",)},
    takes="EFT's COCO2014-All-ver01.json or MPII_ver01.json",
    find=_find,
    read=_read,
)
