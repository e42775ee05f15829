"""ReFit's losses of 2D keypoints, 3D joints and SMPL parameters, weighted by its config's LOSS.

Means are taken as in ReFit, so the weights of its configs have the same effect. Unlabelled data add
nothing: rows without ``has_smpl`` or ``has_pose_3d``, points of confidence 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from examples.hrnet_model import HIPS, SMPL_JOINTS, Prediction, from_hips
from refit_shard.shards_spec.errors import UsageError

OPENPOSE_JOINTS = 25  # the first joints of ``keypoints``, which have weight 0 in ReFit
_BETAS_WEIGHT = 0.001


class Losses(NamedTuple):
    """Scalar float32 losses: ``total`` is the weighted sum of the others, which are unweighted."""

    total: Tensor
    kpt2d: Tensor
    kpt3d: Tensor
    smpl: Tensor


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses, from the config's LOSS: KPT2D, KPT3D and SMPL; a missing one is 0.

    Raises:
        UsageError: a weight is not a number of at least 0, or all are 0.
    """

    kpt2d: float = 0.0
    kpt3d: float = 0.0
    smpl: float = 0.0

    def __post_init__(self) -> None:
        values = {field.name.upper(): getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise UsageError(f"LOSS.{name}: must be a number of at least 0, got {value!r}")
        if not any(values.values()):
            raise UsageError(f"LOSS: one of {', '.join(values)} must be above 0")

    @classmethod
    def of(cls, section: object) -> tuple["LossWeights", list[str]]:
        """The weights of a config's LOSS, and the names in it that this example cannot use.

        Raises:
            UsageError: LOSS is not a section, or its weights are wrong.
        """
        if not isinstance(section, Mapping):
            raise UsageError(f"LOSS: must be a section with KPT2D, KPT3D and SMPL, got {section!r}")
        known = {field.name.upper(): field.name for field in fields(cls)}
        weights = cls(**{name: section[key] for key, name in known.items() if key in section})
        return weights, [str(key) for key in section if key not in known]

    def __call__(self, predicted: Prediction, batch: Mapping[str, Any]) -> Losses:
        """The losses of a training batch, which must be on the prediction's device."""
        kpt2d = keypoint_loss(predicted, batch)
        kpt3d = joint_loss(predicted, batch)
        smpl = parameter_loss(predicted, batch)
        total = self.kpt2d * kpt2d + self.kpt3d * kpt3d + self.smpl * smpl
        return Losses(total, kpt2d, kpt3d, smpl)


def rotations_from_axis_angle(pose: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from axis-angle vectors (..., 3), rad, by Rodrigues' formula; exact at
    0.
    """
    x, y, z = pose.unbind(-1)
    nought = torch.zeros_like(x)
    cross = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], dim=-1)
    cross = cross.reshape(*pose.shape, 3)
    angle = torch.linalg.vector_norm(pose, dim=-1)[..., None, None]
    sine = torch.sinc(angle / math.pi)  # sin(angle) / angle
    cosine = 0.5 * torch.sinc(angle / (2.0 * math.pi)) ** 2  # (1 - cos(angle)) / angle^2
    rotations: Tensor = torch.eye(3, device=pose.device) + sine * cross + cosine * (cross @ cross)
    return rotations


def _mean_of_rows(squares: Tensor, known: Tensor) -> Tensor:
    """Mean of ``squares`` (B, ...) over the rows where ``known`` (B,) is 1; 0 if there are none."""
    rows = known.to(squares.dtype)
    return (squares.flatten(1).mean(dim=1) * rows).sum() / rows.sum().clamp(min=1.0)


def keypoint_loss(predicted: Prediction, batch: Mapping[str, Any]) -> Tensor:
    """Squared distances of SPIN's 24 points in half crops, times confidence; mean over all 49
    points.
    """
    labels: Tensor = batch["keypoints"]
    spin = labels[:, OPENPOSE_JOINTS:]
    squares = (predicted.projected() - spin[:, :, :2]) ** 2 * spin[:, :, 2:]
    return squares.sum() / (labels.shape[0] * labels.shape[1] * 2)


def joint_loss(predicted: Prediction, batch: Mapping[str, Any]) -> Tensor:
    """Squared distances in m², times confidence, of joints relative to the middle of the hips.

    A row with an unknown hip counts as unlabelled.
    """
    labels: Tensor = batch["pose_3d"]
    confidence = labels[:, :, 3:]
    squares = (predicted.joints - from_hips(labels[:, :, :3])) ** 2 * confidence
    hips = (confidence[:, HIPS, 0] > 0).all(dim=1)
    return _mean_of_rows(squares, (batch["has_pose_3d"] == 1) & hips)


def parameter_loss(predicted: Prediction, batch: Mapping[str, Any]) -> Tensor:
    """Mean squared error of rotation matrices, plus a thousandth of that of betas."""
    truth = rotations_from_axis_angle(batch["pose"].reshape(-1, SMPL_JOINTS, 3))
    known = batch["has_smpl"] == 1
    pose = _mean_of_rows((predicted.rotations - truth) ** 2, known)
    return pose + _BETAS_WEIGHT * _mean_of_rows((predicted.betas - batch["betas"]) ** 2, known)
