"""Reads and checks SMPL's model files and joint regressors, without unpickling."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.body_models.plain_pickle import ARRAYS, Admitted, PlainArray, read_plain_pickle
from refit_shard.shards_spec.errors import SourceError
from refit_shard.shards_spec.storage.files import refuse_mistaken

# By the codes of the column gender: 0 male, 1 female, -1 unknown.
MODEL_NAMES = {0: "SMPL_MALE", 1: "SMPL_FEMALE", -1: "SMPL_NEUTRAL"}
PAGE = "https://smpl.is.tue.mpg.de (and https://smplify.is.tue.mpg.de for the neutral model)"
JOINTS = 24
BETAS = 10
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
    """Stands in for chumpy's array and scipy's sparse matrix: keeps their state."""

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
        raise SourceError("an object that a body model does not need")
    return _Chumpy() if kind is _Chumpy else _Sparse()


def _set(items: object = ()) -> set[Any]:
    """The set in which chumpy stores names of changed attributes."""
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
    """The array in place of which a replacement object was created."""
    if isinstance(value, PlainArray):
        return value.array()
    if isinstance(value, _Chumpy):
        return _plain(value.state.get("x"), key)
    if isinstance(value, _Sparse):
        return _dense(value.state, key)
    raise SourceError(f"{key!r} is not an array")


def _dense(state: Mapping[str, Any], key: str) -> NDArray[Any]:
    """A compressed-sparse-column matrix as a dense array."""
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
    """The arrays of an SMPL model file, ``.npz`` or ``.pkl``, by key. No code of the file is run.

    Raises:
        SourceError: the file is damaged, or not an SMPL model.
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
            raise SourceError(
                f"{path}: not an SMPL model: {key!r} is missing or has a wrong number of axes"
            )
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
        raise SourceError(f"{path}: has fewer than {BETAS} shape components")


def find_model(folder: Path, gender: int) -> Path | None:
    """The model file of a gender (a key of MODEL_NAMES) in a folder; None if there is none."""
    files = [folder / f"{MODEL_NAMES[gender]}{ending}" for ending in (".npz", ".pkl")]
    return next((file for file in files if file.is_file()), None)


def read_regressor(path: Path, joints: int) -> NDArray[Any]:
    """A joint regressor (joints, V): the weights of the vertices, from a .npy of SPIN's data
    package.

    Raises:
        SourceError: the file is not such an array.
    """
    try:
        with path.open("rb") as stream:
            refuse_mistaken(stream, str(path))
            array: NDArray[Any] = np.load(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path}: not a plain npy ({error})") from error
    if array.ndim != 2 or array.shape[0] != joints or array.dtype.kind != "f":
        raise SourceError(
            f"{path}: must be numbers of shape ({joints}, V), got {array.dtype} {array.shape}"
        )
    return array
