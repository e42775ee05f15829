"""SMPL meshes of evaluation rows, from the user's own licensed model files."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.loaders.plain_pickle import ARRAYS, Admitted, PlainArray, read_plain_pickle
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.files import refuse_mistaken
from refit_shard.shards_spec.storage.paths import AnyPath, local_path

# As the index codes them: 0 male, 1 female, -1 unknown.
MODEL_NAMES = {0: "SMPL_MALE", 1: "SMPL_FEMALE", -1: "SMPL_NEUTRAL"}
PAGE = "https://smpl.is.tue.mpg.de (and https://smplify.is.tue.mpg.de for the neutral model)"
JOINTS = 24
BETAS = 10
H36M_JOINTS = 17
MAX_FILE_BYTES = 2 << 30

# Arrays of a model file, with their number of dimensions.
_KEYS = {
    "v_template": 2,
    "shapedirs": 3,
    "posedirs": 3,
    "J_regressor": 2,
    "weights": 2,
    "kintree_table": 2,
    "f": 2,
}


class _Record:
    """Stands in for chumpy's array and scipy's sparse matrix: keeps what they would keep."""

    def __init__(self, *_arguments: object) -> None:
        self.state: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, Mapping):
            raise SourceError("an object whose state is not a dictionary")
        self.state = state


class _Chumpy(_Record):
    """chumpy.ch.Ch: its values are under ``x``."""


class _Sparse(_Record):
    """scipy.sparse.csc_matrix."""


def _reconstructor(kind: object, *_base: object) -> _Record:
    if kind not in (_Chumpy, _Sparse):
        raise SourceError("an object that a body model has no need of")
    return _Chumpy() if kind is _Chumpy else _Sparse()


def _set(items: object = ()) -> set[Any]:
    """chumpy notes the names of changed attributes in a set."""
    if not isinstance(items, list):
        raise SourceError("a set that is not made of a list")
    return set(items)


_ADMITTED: Admitted = {
    **ARRAYS,
    ("__builtin__", "set"): _set,
    ("builtins", "set"): _set,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("scipy.sparse.csc", "csc_matrix"): _Sparse,
    ("scipy.sparse._csc", "csc_matrix"): _Sparse,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
}


def _plain(value: object, key: str) -> NDArray[Any]:
    """An array from what stands for one."""
    if isinstance(value, PlainArray):
        return value.array()
    if isinstance(value, _Chumpy):
        return _plain(value.state.get("x"), key)
    if isinstance(value, _Sparse):
        return _dense(value.state, key)
    raise SourceError(f"{key!r} is no array")


def _dense(state: Mapping[str, Any], key: str) -> NDArray[Any]:
    """A compressed-sparse-column matrix, written out."""
    rows, columns = (int(side) for side in state.get("_shape", (0, 0)))
    data, indices, starts = (_plain(state.get(name), key) for name in ("data", "indices", "indptr"))
    if not (0 < rows <= 1 << 10 and 0 < columns <= 1 << 16 and len(starts) == columns + 1):
        raise SourceError(f"{key!r} is a sparse matrix of {rows} x {columns}")
    places = np.repeat(np.arange(columns), np.diff(starts))
    if len(places) != len(indices) or len(indices) != len(data):
        raise SourceError(f"{key!r} is a damaged sparse matrix")
    matrix = np.zeros((rows, columns))
    matrix[indices, places] = data
    return matrix


def read_model(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an SMPL model file, ``.npz`` or ``.pkl``; nothing of it is run.

    Raises:
        SourceError: it is damaged, or is no SMPL model.
    """
    if path.suffix == ".npz":
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SourceError(f"{path}: more than {MAX_FILE_BYTES} bytes")
        try:
            with path.open("rb") as stream:
                refuse_mistaken(stream, str(path))
                with np.load(stream, allow_pickle=False) as file:
                    found: dict[str, Any] = {key: file[key] for key in _KEYS if key in file}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: not a plain npz ({error})") from error
    else:
        content = read_plain_pickle(path, _ADMITTED)
        if not isinstance(content, dict):
            raise SourceError(f"{path}: not an SMPL model")
        try:
            found = {key: _plain(content[key], key) for key in _KEYS if key in content}
        except (SourceError, ValueError, IndexError, TypeError) as error:
            raise SourceError(f"{path}: {error}") from error
    _check_shapes(found, path)
    return found


def _check_shapes(found: Mapping[str, NDArray[Any]], path: Path) -> None:
    for key, dimensions in _KEYS.items():
        if key not in found or found[key].ndim != dimensions:
            raise SourceError(f"{path}: not an SMPL model: {key!r} is missing or misshapen")
    vertices = len(found["v_template"])
    sides = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3),
        "posedirs": (vertices, 3),
        "J_regressor": (JOINTS, vertices),
        "weights": (vertices, JOINTS),
        "kintree_table": (2, JOINTS),
    }
    for key, wanted in sides.items():
        if found[key].shape[:2] != wanted:
            raise SourceError(
                f"{path}: not an SMPL model of {JOINTS} joints: {key!r} is of "
                f"{' x '.join(map(str, found[key].shape))}, with {vertices} vertices it begins "
                f"with {' x '.join(map(str, wanted))}"
            )
    if found["shapedirs"].shape[2] < BETAS:
        raise SourceError(f"{path}: it has fewer than {BETAS} shapes")


def find_models(folder: AnyPath) -> dict[int, Path]:
    """The model file of each gender below ``SMPL_MODEL_DIR``.

    Raises:
        UsageError: some are missing; the message names them and says where they go.
    """
    place = local_path(folder, "SMPL_MODEL_DIR")
    found, missing = {}, []
    for gender, name in MODEL_NAMES.items():
        files = [place / f"{name}{ending}" for ending in (".npz", ".pkl")]
        present = [file for file in files if file.is_file()]
        if present:
            found[gender] = present[0]
        else:
            missing.append(f"{name}.pkl (or .npz)")
    if missing:
        raise UsageError(
            f"SMPL_MODEL_DIR {place}: missing {', '.join(missing)}; download them from {PAGE} and "
            'put them there, or go on without with eval_joints="none"'
        )
    return found


def read_regressor(path: AnyPath, what: str = "JOINT_REGRESSOR_H36M") -> torch.Tensor:
    """The H36M joint regressor, float32 (17, V).

    Raises:
        UsageError: no such file.
        SourceError: it is no such array.
    """
    place = local_path(path, what)
    if not place.is_file():
        raise UsageError(
            f"{what} {place}: no such file; SPIN's data package has it (J_regressor_h36m.npy); a "
            'trainer that does not ask for it, as ReFit\'s does, can do with eval_joints="none"'
        )
    try:
        with place.open("rb") as stream:
            refuse_mistaken(stream, str(place))
            array = np.load(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{place}: not a plain npy ({error})") from error
    if array.ndim != 2 or array.shape[0] != H36M_JOINTS:
        raise SourceError(f"{place}: must have shape (17, V), got {array.shape}")
    return torch.from_numpy(array.astype(np.float32))


@dataclass
class Bodies:
    """The three body models on a device."""

    models: Mapping[int, Any]
    regressor: torch.Tensor
    device: torch.device

    @classmethod
    def open(
        cls, folder: AnyPath, regressor: AnyPath, device: torch.device | str = "cpu"
    ) -> "Bodies":
        """Read the models and the regressor.

        Raises:
            UsageError: a file is missing, or the ``smplx`` package is.
            SourceError: a file is damaged.
        """
        files = find_models(folder)
        matrix = read_regressor(regressor)
        try:
            import smplx  # noqa: PLC0415
        except ImportError:
            raise UsageError(
                "meshes for evaluation need the smplx package: pip install 'refit-shard[smpl]', "
                'or go on without with eval_joints="none"'
            ) from None
        place = torch.device(device)
        models = {}
        for gender, path in files.items():
            data = SimpleNamespace(**read_model(path))
            if len(data.v_template) != matrix.shape[1]:
                raise SourceError(
                    f"{path}: has {len(data.v_template)} vertices, and the H36M joint regressor "
                    f"is for {matrix.shape[1]}"
                )
            data.shapedirs = data.shapedirs[:, :, :BETAS]
            model = smplx.SMPL(
                model_path="", data_struct=data, batch_size=1, create_transl=False
            ).to(place)
            models[gender] = model.eval()
        return cls(models, matrix.to(place), place)

    @torch.no_grad()
    def joints_and_vertices(
        self, pose: torch.Tensor, betas: torch.Tensor, gender: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Joints (n, 17, 4) with confidence 1 and vertices (n, V, 3), metres, from the pelvis.

        ``pose`` (n, 72) axis-angle, ``betas`` (n, 10), ``gender`` (n,) as in the index. The pelvis
        is the first H36M joint, regressed from the mesh.
        """
        count = len(pose)
        vertices = torch.empty(count, self.regressor.shape[1], 3, device=self.device)
        for code, model in self.models.items():
            mine = torch.nonzero(gender == code).flatten()
            if len(mine):
                chosen = mine.to(pose.device)
                vertices[mine.to(self.device)] = model(
                    global_orient=pose[chosen, :3].to(self.device),
                    body_pose=pose[chosen, 3:].to(self.device),
                    betas=betas[chosen].to(self.device),
                ).vertices
        joints = torch.einsum("jv,nvc->njc", self.regressor, vertices)
        pelvis = joints[:, :1].clone()
        ones = torch.ones(count, H36M_JOINTS, 1, device=self.device)
        return torch.cat([joints - pelvis, ones], dim=2), vertices - pelvis
