"""Imports BEDLAM's labels: one npz for each scene, in a folder or a zip. The formulas are those of
ReFit's ``bedlam2spin.py``.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.body_models.joints import EXTRA_JOINTS, SpinJoints
from refit_shard.body_models.smpl import MODEL_NAMES, find_model, read_model, read_regressor
from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.importers.found import Found, find_file, find_files, find_members
from refit_shard.converter.importers.gathered import Gathered, fits
from refit_shard.converter.importers.importer import ALL_OF, Importer, Tools
from refit_shard.converter.importers.rotations import matrices_of
from refit_shard.shards_spec.errors import SourceError

Array = NDArray[np.float64]

SCALE_FACTOR = 1.12
LEAST_SCALE = 0.3
BETAS = 10
SMPL_POSE, SMPLX_POSE = 72, 165
PELVIS = 14
NEUTRAL = -1
REGRESSOR = "J_regressor_extra.npy"
_BATCH = 4096
_KEYS: dict[str, tuple[int, ...]] = {
    "center": (2,),
    "scale": (),
    "pose_cam": (-1,),
    "shape": (-1,),
    "cam_int": (3, 3),
}
_CAMERA_KEYS: dict[str, tuple[int, ...]] = {"trans_cam": (3,), "cam_ext": (4, 4)}


def _find(path: Path, _dataset: str | None) -> list[Found]:
    """The scenes' npz files, sorted by name. The zip also holds labels of AGORA."""
    if path.is_dir():
        found = find_files(path, "*.npz")
    elif path.suffix == ".npz":
        found = [find_file(path)]
    else:
        found = find_members(path, ".npz")
    return sorted(found, key=lambda one: one.name)


def read_joints(folder: Path) -> SpinJoints | None:
    """SPIN's joints of the neutral SMPL body; None if the folder lacks the model or the regressor.

    Raises:
        SourceError: one of them is damaged, or belongs to another mesh.
    """
    model, regressor = find_model(folder, NEUTRAL), folder / REGRESSOR
    if model is None or not regressor.is_file():
        return None
    return SpinJoints.of(read_model(model), read_regressor(regressor, EXTRA_JOINTS), str(model))


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """One scene's arrays. ``names``: of the frames, below the scene's folder. ``arrays``:
    by key.
    """

    names: NDArray[Any]
    arrays: dict[str, Array]

    @property
    def is_smpl(self) -> bool:
        return bool(self.arrays["pose_cam"].shape[1] == SMPL_POSE)


def _read_scene(found: Found, *, cameras: bool) -> _Scene:
    with found.open() as stream, closing(Npz(found.path, stream, found.where)) as npz:
        if "pose_cam" not in npz.entries:
            spin = "pose" in npz.entries and "part" in npz.entries
            raise SourceError(
                f"{found.where}: has no pose_cam, so it is not one of BEDLAM's"
                + ("; it is in SPIN's format already: use it for build directly" if spin else "")
            )
        keys = _KEYS | _CAMERA_KEYS if cameras else _KEYS
        for key in ("imgname", *keys):
            if key not in npz.entries:
                raise SourceError(f"{found.where}: key {key!r} is missing")
        names = npz.read("imgname")
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise SourceError(f"{found.where}: imgname must be strings, got {names.dtype}")
        arrays = {key: _numbers(npz, key, (len(names), *keys[key])) for key in keys}
    poses, betas = arrays["pose_cam"].shape[1], arrays["shape"].shape[1]
    if poses not in (SMPL_POSE, SMPLX_POSE) or betas < BETAS:
        raise SourceError(
            f"{found.where}: pose_cam must be of {SMPL_POSE} numbers (SMPL) or {SMPLX_POSE} "
            f"(SMPL-X) and shape of {BETAS} or more, got {poses} and {betas}"
        )
    return _Scene(names=names, arrays=arrays)


def _numbers(npz: Npz, key: str, shape: tuple[int, ...]) -> Array:
    """The array of a key as float64. ``shape``: the expected one, with -1 for any length."""
    entry = npz.entries[key]
    if not fits(entry.shape, shape) or entry.dtype.kind not in "fiu":
        raise SourceError(
            f"{npz.path}: {key} must be numbers of shape {shape}, got {entry.dtype} {entry.shape}"
        )
    return npz.read(key).astype(np.float64)


def _texts(names: NDArray[Any], where: str) -> list[str]:
    try:
        return [one.decode() if isinstance(one, bytes) else one for one in names.tolist()]
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: imgname is not UTF-8 ({error})") from error


def _joint_labels(joints: SpinJoints, arrays: dict[str, Array]) -> dict[str, Array]:
    """``part`` (n, 24, 3) px and ``S`` (n, 24, 4) m: the mesh's joints, moved by trans_cam and by
    the translation of cam_ext.
    """
    moved = arrays["trans_cam"] + arrays["cam_ext"][:, :3, 3]
    rotations = matrices_of(arrays["pose_cam"].reshape(-1, 24, 3))
    found = joints(rotations, arrays["shape"][:, :BETAS]) + moved[:, None]
    focal, middle = _camera(arrays["cam_int"])
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = focal[:, None, None] * found[:, :, :2] / found[:, :, 2:] + middle[:, None]
    sure = np.ones((*found.shape[:2], 1))
    return {
        "S": np.concatenate([found - found[:, PELVIS : PELVIS + 1], sure], axis=2),
        "part": np.concatenate([pixels, sure], axis=2),
    }


def _camera(intrinsics: Array) -> tuple[Array, Array]:
    """Focal length (n,) and principal point (n, 2), px."""
    return (intrinsics[:, 0, 0] + intrinsics[:, 1, 1]) / 2, intrinsics[:, :2, 2]


def _add_scene(found: Found, scene: _Scene, joints: SpinJoints | None, gathered: Gathered) -> None:
    scale = scene.arrays["scale"] * SCALE_FACTOR
    large = ~(scale <= LEAST_SCALE)  # NaN counts as large; the build puts it into quarantine
    gathered.leave_out(f"scale of at most {LEAST_SCALE}", int((~large).sum()))
    prefix = found.name.removesuffix(".npz") + "/png/"
    names = np.array([prefix + name for name in _texts(scene.names, found.where)], str)
    rows = np.flatnonzero(large)
    for begin in range(0, len(rows), _BATCH):
        chosen = rows[begin : begin + _BATCH]
        arrays = {key: values[chosen] for key, values in scene.arrays.items()}
        focal, middle = _camera(arrays["cam_int"])
        columns = {
            "imgname": names[chosen],
            "center": arrays["center"],
            "scale": scale[chosen],
            "img_focal": focal,
            "img_center": middle,
        }
        if scene.is_smpl:
            columns |= {"pose": arrays["pose_cam"], "shape": arrays["shape"][:, :BETAS]}
        if joints is not None:
            columns |= _joint_labels(joints, arrays)
        gathered.add(**columns)


def _read(files: Sequence[Found], gathered: Gathered, tools: Tools) -> None:
    joints = read_joints(tools.smpl)
    is_smpl: bool | None = None
    for found in files:
        if found.name.startswith("agora-"):
            gathered.notes.append(f"{found.name}: labels of AGORA, not of a BEDLAM scene; left out")
        else:
            scene = _read_scene(found, cameras=joints is not None)
            if is_smpl not in (None, scene.is_smpl):
                raise SourceError(
                    f"{found.where}: its pose_cam belongs to another body model than the other "
                    "scenes'; import SMPL's and SMPL-X's labels separately"
                )
            is_smpl = scene.is_smpl
            _add_scene(found, scene, joints if scene.is_smpl else None, gathered)
        gathered.on_bytes(found.size)
    gathered.lack("ReFit's script makes none", "openpose")
    if is_smpl is False:
        why = (
            f"pose_cam is SMPL-X's, with {SMPLX_POSE} numbers; SMPL's labels are in "
            "all_npz_12_smpl_training.zip"
        )
        gathered.lack(why, "pose", "shape", "part", "S")
    elif joints is None:
        name = MODEL_NAMES[NEUTRAL]
        why = f"they need {name}.pkl (or .npz) and {REGRESSOR}, not both in {tools.smpl}"
        gathered.lack(why, "part", "S")


IMPORTER = Importer(
    called={
        "bedlam": (
            *("all_npz_12_smpl_training.zip", "all_npz_12_smpl_training", f"{ALL_OF}_6fps.npz"),
            *("all_npz_12_training.zip", "all_npz_12_training"),
        )
    },
    takes="BEDLAM's all_npz_12_smpl_training.zip, its folder, or a scene's npz",
    find=_find,
    read=_read,
)
