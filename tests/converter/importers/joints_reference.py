"""SPIN's joints by its own names, of a mesh that is skinned vertex by vertex."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.loaders.body_model import JOINTS, PARENTS, VERTICES, rodrigues, skin

Array = NDArray[Any]

# In SPIN's order. "joint": SMPL's own; "vertex": one of the mesh; "extra": a row of the regressor.
NAMED = {
    "right ankle": ("joint", 8),
    "right knee": ("joint", 5),
    "right hip": ("extra", 0),
    "left hip": ("extra", 1),
    "left knee": ("joint", 4),
    "left ankle": ("joint", 7),
    "right wrist": ("joint", 21),
    "right elbow": ("joint", 19),
    "right shoulder": ("joint", 17),
    "left shoulder": ("joint", 16),
    "left elbow": ("joint", 18),
    "left wrist": ("joint", 20),
    "neck": ("extra", 2),
    "top of head": ("extra", 3),
    "pelvis": ("extra", 4),
    "thorax": ("extra", 5),
    "spine": ("extra", 6),
    "jaw": ("extra", 7),
    "head": ("extra", 8),
    "nose": ("vertex", 332),
    "left eye": ("vertex", 2800),
    "right eye": ("vertex", 6260),
    "left ear": ("vertex", 583),
    "right ear": ("vertex", 4071),
}


def extra_regressor(seed: int) -> Array:
    """A regressor (9, V) of a few vertices each, as SPIN's is."""
    rng = np.random.default_rng(seed)
    regressor = np.zeros((9, VERTICES))
    for row in regressor:
        row[rng.integers(0, VERTICES, 20)] = rng.random(20) / 10
    return regressor


def bone_ends(body: dict[str, Array], pose: Array, betas: Array) -> list[Array]:
    """SMPL's joints after all have turned, one after another."""
    rest = body["J_regressor"] @ (body["v_template"] + body["shapedirs"] @ betas)
    turns: list[Array] = []
    ends: list[Array] = []
    for joint in range(JOINTS):
        turn = rodrigues(pose[3 * joint : 3 * joint + 3])
        parent = PARENTS[joint]
        if parent < 0:
            turns.append(turn)
            ends.append(rest[joint])
        else:
            turns.append(turns[parent] @ turn)
            ends.append(ends[parent] + turns[parent] @ (rest[joint] - rest[parent]))
    return ends


def spin_joints(body: dict[str, Array], extra: Array, pose: Array, betas: Array) -> Array:
    """SPIN's 24 joints (24, 3) of one body."""
    mesh, ends = skin(body, pose, betas), bone_ends(body, pose, betas)
    regressed = extra @ mesh
    held: dict[str, Any] = {"joint": ends, "vertex": mesh, "extra": regressed}
    return np.array([held[kind][number] for kind, number in NAMED.values()])
