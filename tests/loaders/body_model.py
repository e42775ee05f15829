"""A small synthetic body model in SMPL's layout, and linear blend skinning written out."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[np.float64]

# smplx picks its extra joints from these vertices, so a model of fewer cannot be loaded by it.
VERTICES = 6890
JOINTS = 24
# SMPL's own tree: each joint's parent.
PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8),
    *(9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
)


def make_body(seed: int) -> dict[str, Array]:
    """Seeded arrays with the shapes of an SMPL file."""
    rng = np.random.default_rng(seed)
    weights = rng.random((VERTICES, JOINTS)) ** 8
    regressor = np.zeros((JOINTS, VERTICES))
    for joint in range(JOINTS):
        regressor[joint, rng.integers(0, VERTICES, 6)] = 1 / 6
    parents = np.array(PARENTS)
    parents[0] = 2**32 - 1  # as SMPL's files have it
    return {
        "v_template": rng.normal(0, 0.5, (VERTICES, 3)),
        "shapedirs": rng.normal(0, 0.03, (VERTICES, 3, 10)),
        "posedirs": rng.normal(0, 0.01, (VERTICES, 3, 207)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(JOINTS)]).astype(np.int64),
        "f": rng.integers(0, VERTICES, (40, 3)),
    }


class Ch:
    """Has the attributes of a chumpy.ch.Ch: values under ``x``, names of changed ones in a set."""

    def __init__(self, values: Array) -> None:
        self._make_sparse = False
        self._dirty_vars = {"x"}
        self._itr = None
        self._depends_on_deps: dict[str, Any] = {}
        self.x = values


Ch.__module__ = "chumpy.ch"


def licensed_bytes(body: dict[str, Array]) -> bytes:
    """A model file as the licensed download has it: chumpy and scipy objects, protocol 2."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch  # type: ignore[attr-defined]
    content = {
        **body,
        "v_template": Ch(body["v_template"]),
        "shapedirs": Ch(body["shapedirs"]),
        "J_regressor": scipy.sparse.csc_matrix(body["J_regressor"]),
        "bs_style": "lbs",
        "vert_sym_idxs": np.arange(4),
    }
    with patch.dict(sys.modules, {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": module}):
        return pickle.dumps(content, protocol=2)


def write_bodies(folder: Path, *, pickled: bool = False) -> dict[int, dict[str, Array]]:
    """Three model files and a regressor of 17 joints; returns the bodies by gender code."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {}
    for code, name in ((0, "SMPL_MALE"), (1, "SMPL_FEMALE"), (-1, "SMPL_NEUTRAL")):
        bodies[code] = make_body(code + 10)
        if pickled:
            (folder / f"{name}.pkl").write_bytes(licensed_bytes(bodies[code]))
        else:
            np.savez(folder / f"{name}.npz", **cast(Any, bodies[code]))
    regressor = np.zeros((17, VERTICES))
    rng = np.random.default_rng(99)
    for joint in range(17):
        regressor[joint, rng.integers(0, VERTICES, 5)] += 0.2
    np.save(folder / "J_regressor_h36m.npy", regressor)
    return bodies


def rodrigues(vector: Array) -> Array:
    """Rotation matrix of one axis-angle vector."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def skin(body: dict[str, Array], pose: Array, betas: Array) -> Array:
    """Vertices (V, 3): shape, pose correctives, then each vertex by its joints."""
    shaped = body["v_template"] + body["shapedirs"] @ betas
    joints = body["J_regressor"] @ shaped
    turns = [rodrigues(part) for part in pose.reshape(JOINTS, 3)]
    corrective = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + body["posedirs"] @ corrective
    world: list[Array] = []
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    transforms = np.zeros((JOINTS, 4, 4))
    for joint, matrix in enumerate(world):
        away = np.eye(4)
        away[:3, 3] = -joints[joint]
        transforms[joint] = matrix @ away
    blended = np.einsum("vj,jab->vab", body["weights"], transforms)
    homogeneous = np.concatenate([posed, np.ones((VERTICES, 1))], axis=1)
    return np.asarray(np.einsum("vab,vb->va", blended, homogeneous)[:, :3])
