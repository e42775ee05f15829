"""Computes SPIN's joints of posed SMPL bodies, without computing the vertices."""

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
# For each of SPIN's 24 joints (constants.py, JOINT_MAP, without OpenPose's 25) its source: 0 to 23
# are SMPL's joints, 24 to 28 the vertices above, 29 to 37 the rows of J_regressor_extra.
_SPIN_24 = (
    *(8, 5, 29, 30, 4, 7),  # right ankle, knee, hip; left hip, knee, ankle
    *(21, 19, 17, 16, 18, 20),  # right wrist, elbow, shoulder; left shoulder, elbow, wrist
    *(31, 32, 33, 34, 35, 36, 37),  # neck, top of head, pelvis, thorax, spine, jaw, head
    *(24, 26, 25, 28, 27),  # nose, left eye, right eye, left ear, right ear
)


@dataclass(frozen=True)
class SpinJoints:
    """Computes SPIN's 24 joints of SMPL bodies, with linear maps that are made once.

    A skinned vertex is ``sum_j w_vj (R_j v + t_j)``, where ``v`` is linear in the shape and in the
    rotations of the pose. So a regressed joint, with the weights ``r_v``, is
    ``sum_j R_j (sum_v r_v w_vj v) + t_j (sum_v r_v w_vj)``, and the sums over vertices are linear
    maps of shape and pose, which are stored: ``template`` (regressed joints, bones, 3), ``shape``
    (…, betas) and ``pose`` (…, 207) with the same first axes, ``weight`` (regressed joints, bones).
    ``rest`` (24, 3) and ``rest_shape`` (24, 3, betas) give SMPL's joints in the rest pose.
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
        """The maps of a model.

        Args:
            model: its arrays, from :func:`~refit_shard.body_models.smpl.read_model`.
            extra: SPIN's ``J_regressor_extra`` (9, V).
            where: name of the model, for errors.

        Raises:
            SourceError: the two belong to different meshes, or the model's joints are not a tree.
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
        """SPIN's 24 joints (n, 24, 3), m, in the frame that the root's rotation refers to.

        ``rotations`` (n, 24, 3, 3): each joint's, relative to its parent. ``betas`` (n, 10).
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
        """The global rotation (n, 24, 3, 3) and position (n, 24, 3) of each joint of the posed
        body.

        ``rest`` (n, 24, 3): the joints in the rest pose.
        """
        turns, ends = np.empty_like(rotations), np.empty_like(rest)
        turns[:, 0], ends[:, 0] = rotations[:, 0], rest[:, 0]
        for joint, parent in enumerate(self.parents[1:], start=1):
            turns[:, joint] = turns[:, parent] @ rotations[:, joint]
            step = (rest[:, joint] - rest[:, parent])[:, :, None]
            ends[:, joint] = ends[:, parent] + (turns[:, parent] @ step)[:, :, 0]
        return turns, ends


def _parents(table: NDArray[Any], where: str) -> tuple[int, ...]:
    """Each joint's parent, -1 for the root. A parent must come before its children."""
    parents = (-1, *(int(parent) for parent in table[0, 1:]))
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise SourceError(f"{where}: 'kintree_table' is not a tree of {JOINTS} joints")
    return parents
