"""Joints of SMPL's meshes without the meshes: what a regressor takes from posed vertices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.body_models.smpl import BETAS, JOINTS
from refit_shard.shards_spec.errors import SourceError

Array = NDArray[np.float64]

EXTRA_JOINTS = 9
SPIN_JOINTS = 24
# SMPL's vertices at the nose, the right and left eye, the right and left ear (smplx's vertex_ids).
FACE_VERTICES = (332, 6260, 2800, 4071, 583)
# Where SPIN's 24 joints come from (constants.py, JOINT_MAP, without OpenPose's 25): 0 to 23 are
# SMPL's own joints, 24 to 28 the vertices above, 29 to 37 the rows of J_regressor_extra.
_SPIN_24 = (
    *(8, 5, 29, 30, 4, 7),  # right ankle, knee, hip; left hip, knee, ankle
    *(21, 19, 17, 16, 18, 20),  # right wrist, elbow, shoulder; left shoulder, elbow, wrist
    *(31, 32, 33, 34, 35, 36, 37),  # neck, top of head, pelvis, thorax, spine, jaw, head
    *(24, 26, 25, 28, 27),  # nose, left eye, right eye, left ear, right ear
)


@dataclass(frozen=True)
class SpinJoints:
    """SPIN's 24 joints of an SMPL body, by linear maps that are made once.

    A skinned vertex is ``sum_j w_vj (R_j v + t_j)``, and ``v`` is linear in the shape and in the
    rotations of the pose. So a regressed joint ``sum_v r_v v`` is
    ``sum_j R_j (sum_v r_v w_vj v) + t_j (sum_v r_v w_vj)``, and the sums over vertices become maps
    from shape and pose: ``template`` (regressed joints, bones, 3), ``shape`` and ``pose`` (the same
    x betas, x 207), ``weight`` (regressed joints, bones). ``rest`` (24, 3) and ``rest_shape``
    (24, 3, betas) give the bones' ends before they are turned.
    """

    parents: tuple[int, ...]
    rest: Array
    rest_shape: Array
    weight: Array
    template: Array
    shape: Array
    pose: Array

    @classmethod
    def of(cls, model: Mapping[str, NDArray[Any]], extra: NDArray[Any], where: str) -> "SpinJoints":
        """Made from a model's arrays (:func:`~refit_shard.body_models.smpl.read_model`) and SPIN's
        ``J_regressor_extra`` (9, V). ``where`` names the model in errors.

        Raises:
            SourceError: the two are of different meshes, or the model's joints are no tree.
        """
        vertices = len(model["v_template"])
        if vertices <= max(FACE_VERTICES) or extra.shape != (EXTRA_JOINTS, vertices):
            raise SourceError(
                f"{where}: has {vertices} vertices, J_regressor_extra is for {extra.shape[1]}; "
                "both must be SMPL's 6890"
            )
        regressor = np.zeros((len(FACE_VERTICES) + EXTRA_JOINTS, vertices))
        regressor[np.arange(len(FACE_VERTICES)), FACE_VERTICES] = 1.0
        regressor[len(FACE_VERTICES) :] = extra
        shared = np.asarray(regressor[:, None, :] * model["weights"].T[None], np.float64)
        shapedirs = np.asarray(model["shapedirs"][:, :, :BETAS], np.float64)
        return cls(
            parents=_parents(model["kintree_table"], where),
            rest=model["J_regressor"] @ model["v_template"],
            rest_shape=np.tensordot(model["J_regressor"], shapedirs, 1),
            weight=shared.sum(axis=2),
            template=np.tensordot(shared, model["v_template"], 1),
            shape=np.tensordot(shared, shapedirs, 1),
            pose=np.tensordot(shared, model["posedirs"], 1),
        )

    def __call__(self, rotations: Array, betas: Array) -> Array:
        """SPIN's 24 joints (n, 24, 3), metres, in the frame of the root's rotation.

        ``rotations`` (n, 24, 3, 3): each bone's against its parent. ``betas`` (n, 10).
        """
        rest = self.rest + np.einsum("jck,nk->njc", self.rest_shape, betas)
        turns, ends = self._bones(rotations, rest)
        away = ends - np.einsum("njab,njb->nja", turns, rest)  # each bone's translation
        features = (rotations[:, 1:] - np.eye(3)).reshape(-1, 9 * (JOINTS - 1))
        moved = betas @ self.shape.reshape(-1, BETAS).T
        moved += features @ self.pose.reshape(-1, features.shape[1]).T
        shared = self.template + moved.reshape(-1, *self.template.shape)
        regressed = np.einsum("njab,nrjb->nra", turns, shared, optimize=True)
        regressed += np.einsum("rj,nja->nra", self.weight, away)
        return np.concatenate([ends, regressed], axis=1)[:, _SPIN_24]

    def _bones(self, rotations: Array, rest: Array) -> tuple[Array, Array]:
        """Each bone's rotation (n, 24, 3, 3) and end (n, 24, 3) after its parents have turned."""
        turns, ends = np.empty_like(rotations), np.empty_like(rest)
        turns[:, 0], ends[:, 0] = rotations[:, 0], rest[:, 0]
        for joint, parent in enumerate(self.parents[1:], start=1):
            turns[:, joint] = turns[:, parent] @ rotations[:, joint]
            step = (rest[:, joint] - rest[:, parent])[:, :, None]
            ends[:, joint] = ends[:, parent] + (turns[:, parent] @ step)[:, :, 0]
        return turns, ends


def _parents(table: NDArray[Any], where: str) -> tuple[int, ...]:
    """Each joint's parent; the root's is -1. The others' come before them."""
    parents = (-1, *(int(parent) for parent in table[0, 1:]))
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise SourceError(f"{where}: 'kintree_table' is no tree of {JOINTS} joints")
    return parents
