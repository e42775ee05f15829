"""Checks the files besides the datasets: body models, regressors, occluders, backbones.

Body models are read as the validation reads them. Of the other files only enough is read to see
that their format is the one that the name states. Nothing is unpickled.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refit_shard.body_models.smpl import read_model
from refit_shard.converter.doctor.findings import Finding
from refit_shard.shards_spec.errors import RefitShardError
from refit_shard.shards_spec.storage.files import HEAD_BYTES, mistaken_for

BACKBONES = tuple(
    f"pose_hrnet_{width}_{size}.pth" for width in ("w32", "w48") for size in ("256x192", "384x288")
)
_SMPL_PAGE = "https://smpl.is.tue.mpg.de (neutral: https://smplify.is.tue.mpg.de)"
_SPIN = "SPIN's data package (github.com/nkolot/SPIN, fetch_data.sh)"
_HRNET = (
    "the HRNet authors' COCO pose models (github.com/leoxiaobin/deep-high-resolution-net.pytorch)"
)


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A file besides the datasets, which is present if any of ``files`` exists.

    ``serves``: what it is used for. ``fix``: how to get it. ``shape``: expected shape of a .npy,
    with None for any length. ``read``: reads a whole file; raises a RefitShardError if it is
    damaged. ``needed``: True if its absence is a failure.
    """

    check: str
    files: tuple[Path, ...]
    serves: str
    fix: str
    shape: tuple[int | None, ...] | None = None
    read: Callable[[Path], object] | None = None
    needed: bool = False


def extras_of(
    *,
    smpl: Path,
    regressor_h36m: Path,
    regressor_extra: Path,
    occluders: Path,
    occluder_pickle: Path,
    pretrain: Path,
    evaluates: bool,
) -> list[Extra]:
    """The extras of a data folder.

    ``evaluates``: True if a 3DPW test set is checked too; body models are then needed.
    ``occluder_pickle``: ReFit's list of occluders, from which ``occluders`` is made.
    """
    voc_or_pickle = occluder_pickle if occluder_pickle.is_file() else "--voc VOCdevkit/VOC2012"
    models = [
        Extra(
            check=f"SMPL_{gender}",
            files=(smpl / f"SMPL_{gender}.npz", smpl / f"SMPL_{gender}.pkl"),
            serves='validation meshes (eval_joints="none" goes without)',
            fix=f"download it from {_SMPL_PAGE} and put it there",
            read=read_model,
            needed=evaluates,
        )
        for gender in ("NEUTRAL", "MALE", "FEMALE")
    ]
    return [
        *models,
        Extra(
            check="H36M regressor",
            files=(regressor_h36m,),
            serves='validation joints (eval_joints="none" goes without)',
            fix=f"copy it from {_SPIN}",
            shape=(17, None),
            needed=evaluates,
        ),
        Extra(
            check="extra regressor",
            files=(regressor_extra,),
            serves="ReFit's SMPL joints",
            fix=f"copy it from {_SPIN}",
            shape=(9, None),
        ),
        Extra(
            check="occluders",
            files=(occluders,),
            serves="synthetic occlusion",
            fix=f"make it: refit-shard import-occluders {voc_or_pickle}",
        ),
        Extra(
            check="backbone",
            files=tuple(pretrain / name for name in BACKBONES),
            serves="a pretrained HRNet",
            fix=f"download one of {_HRNET}",
        ),
    ]


def fault_of(path: Path, shape: tuple[int | None, ...] | None = None) -> str | None:
    """Why a file does not have the format that its name states; None if it has."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    zipped = path.suffix == ".npz" or (path.suffix == ".pth" and head.startswith(b"PK"))
    mistaken = mistaken_for(head)
    faults = (
        (mistaken is not None, mistaken),
        (zipped and not zipfile.is_zipfile(path), "is damaged or cut short"),
        (path.suffix == ".arrow" and not head.startswith(b"ARROW1"), "is not an Arrow file"),
    )
    found = next((text for wrong, text in faults if wrong), None)
    return _npy_fault(path, shape) if found is None and path.suffix == ".npy" else found


def _npy_fault(path: Path, shape: tuple[int | None, ...] | None) -> str | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return f"is not a plain npy ({error})"
    if shape is None:
        return None
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    wanted = ", ".join("V" if length is None else str(length) for length in shape)
    return None if fits else f"must have shape ({wanted}), has {array.shape}"


def _read_fault(path: Path, read: Callable[[Path], object] | None) -> str | None:
    try:
        if read is not None:
            read(path)
    except RefitShardError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def check_extra(extra: Extra) -> Finding:
    """Check that the file exists and has the format that its name states; a broken one is a
    failure.
    """
    present = [path for path in extra.files if path.is_file()]
    if not present:
        more = "".join(f", or {path.name}" for path in extra.files[1:])
        return Finding(
            "extras",
            extra.check,
            "fail" if extra.needed else "warn",
            f"{extra.files[0]}{more}: missing; used for {extra.serves}",
            extra.fix,
        )
    for path in present:
        fault = fault_of(path, extra.shape) or _read_fault(path, extra.read)
        if fault is not None:
            return Finding("extras", extra.check, "fail", f"{path}: {fault}", extra.fix)
    return Finding("extras", extra.check, "ok", ", ".join(str(path) for path in present))
