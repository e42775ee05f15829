"""HRNet with a small head that predicts pose, shape, camera and joints of the person in a crop."""

import importlib
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refit_shard.shards_spec.errors import UsageError

PRETRAIN = Path("data/pretrain")
CROPS = ("256x192", "384x288")  # input sizes of the published pose models, preferred first

SMPL_JOINTS = 24
SPIN_JOINTS = 24
BETAS = 10
HIPS = (2, 3)  # right and left hip in SPIN's joints
_HIDDEN = 1024
_PARTS = (SMPL_JOINTS * 6, BETAS, 3, SPIN_JOINTS * 3)
# First two columns of rotations: an upright root in a camera frame with y down, and the rest pose.
_ROOT_6D = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
_REST_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_MEAN_SCALE = 0.9  # half crops per metre: a person of 1.8 m fills most of the crop


class Prediction(NamedTuple):
    """The model's output for each crop.

    Attributes:
        rotations: (B, 24, 3, 3) of SMPL's joints, the root in the camera frame.
        betas: (B, 10).
        camera: (B, 3) weak perspective s, tx, ty; s in half crops per metre, t in half crops.
        joints: (B, 24, 3) SPIN's joints, metres from the middle of the hips, camera frame.
    """

    rotations: Tensor
    betas: Tensor
    camera: Tensor
    joints: Tensor

    def projected(self) -> Tensor:
        """The joints in the crop, (B, 24, 2): x and y from -1 to 1, from edge to edge."""
        points: Tensor = self.camera[:, None, :1] * self.joints[:, :, :2] + self.camera[:, None, 1:]
        return points


def from_hips(joints: Tensor) -> Tensor:
    """Joints (B, J, 3), J in SPIN's order, relative to the middle of the hips."""
    return joints - joints[:, HIPS, :].mean(dim=1, keepdim=True)


def rotations_from_6d(columns: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from their first two columns (..., 6), which are made orthonormal."""
    first = nn.functional.normalize(columns[..., :3], dim=-1)
    along = (first * columns[..., 3:]).sum(-1, keepdim=True)
    second = nn.functional.normalize(columns[..., 3:] - along * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


# ---------------------------------------------------------------------------------- backbone


def import_timm() -> Any:
    """The timm package, imported.

    timm imports torchvision, which registers a shape rule for its operator ``nms`` on import. A
    torchvision for CUDA beside a torch for the CPU (as pip installs on Linux if only torch comes
    from the CPU index) cannot load its operators, so the registration fails. HRNet needs none of
    these operators, so they are declared without an implementation here; torchvision refuses to
    call them.

    Raises:
        UsageError: timm is not installed.
    """
    try:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in ("nms", "qnms"):
                arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", arguments)
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            f"the backbone needs the timm package ({error}): pip install 'refit-shard[train]'"
        ) from None


def make_backbone(name: str) -> Any:
    """timm's HRNet without its classifier; its output is the feature maps of its four branches.

    Raises:
        UsageError: timm has no HRNet of that name, or is not installed.
    """
    timm = import_timm()
    known = timm.list_models("hrnet_*")
    if name not in known:
        raise UsageError(f"--model: must be one of timm's {', '.join(known)}, got {name!r}")
    return timm.create_model(
        name, pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    )


class HumanModel(nn.Module):
    """HRNet's four branches, averaged over pixels, then two linear layers; see :class:`Prediction`.

    SMPL's meshes need a licensed body model, so the joints are predicted separately, not computed
    from SMPL's parameters.

    Raises:
        UsageError: timm has no such backbone.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.name = backbone
        self.backbone = make_backbone(backbone)
        channels = sum(self.backbone.feature_info.channels())
        last = nn.Linear(_HIDDEN, sum(_PARTS))
        nn.init.normal_(last.weight, std=1e-3)
        pose = [*_ROOT_6D, *(_REST_6D * (SMPL_JOINTS - 1))]
        rest = [*[0.0] * BETAS, _MEAN_SCALE, 0.0, 0.0, *[0.0] * (SPIN_JOINTS * 3)]
        with torch.no_grad():
            last.bias.copy_(torch.tensor(pose + rest))
        self.head = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(inplace=True), last)

    def forward(self, images: Tensor) -> Prediction:
        """Predict from ``images`` (B, 3, H, W), ImageNet-normalised; the head uses float32."""
        maps: list[Tensor] = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            means = torch.cat([branch.float().mean(dim=(2, 3)) for branch in maps], dim=1)
            pose, betas, camera, joints = self.head(means).split(_PARTS, dim=1)
            return Prediction(
                rotations=rotations_from_6d(pose.reshape(-1, SMPL_JOINTS, 6)),
                betas=betas,
                camera=camera,
                joints=from_hips(joints.reshape(-1, SPIN_JOINTS, 3)),
            )


# ------------------------------------------------------------------------- pretrained weights


def find_pretrained(model: str) -> Path | None:
    """The file of a model's published pose weights in data/pretrain; None if there is none."""
    for crop in CROPS:
        path = PRETRAIN / f"pose_{model}_{crop}.pth"
        if path.is_file():
            return path
    return None


def read_tensors(path: Path) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote to a file, read without running code from it.

    Raises:
        UsageError: the file is missing, not from torch.save, or holds more than tensors and plain
            values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        # torch's message advises to load without the safeguard, so it is not shown.
        raise UsageError(
            f"{path}: not a torch.save file of plain tensors: it is damaged, or holds objects that "
            "could run code"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must hold a dictionary, got {type(content).__name__}")
    return content


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Names of tensors that are in both file and backbone, or only in one of them."""

    both: tuple[str, ...]
    only_model: tuple[str, ...]
    only_file: tuple[str, ...]

    def lines(self) -> Iterable[str]:
        """Lines to print: counts of tensors by module."""
        yield f"  matched {len(self.both)}: {_grouped(self.both, 1)}"
        yield f"  not in the file {len(self.only_model)}: {_grouped(self.only_model, 4)}"
        yield f"  not in the model {len(self.only_file)}: {_grouped(self.only_file, 4)}"


def _grouped(names: Iterable[str], depth: int) -> str:
    """Counts of names by their first ``depth`` parts, such as ``stage2 (120), stage3 (300)``."""
    groups = Counter(".".join(name.split(".")[:-1][:depth]) or name for name in names)
    return ", ".join(f"{group} ({count})" for group, count in groups.items()) or "-"


def load_pretrained(backbone: nn.Module, path: Path) -> Matched:
    """Copy the tensors of a published pose model into the backbone, by name.

    The published models have only the last stage's fusion into its first branch, so the fusions
    into the other branches keep their random weights.

    Raises:
        UsageError: no name matches, or a tensor has another shape; the backbone is unchanged.
    """
    content = read_tensors(path)
    given = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    own = backbone.state_dict()
    both = [name for name in own if name in given]
    if not both:
        raise UsageError(
            f"{path}: none of its {len(content)} entries ({_some(content)}) is a tensor of the "
            f"backbone ({_some(own)}); give a pose_hrnet_*.pth of HRNet's authors"
        )
    for name in both:
        if given[name].shape != own[name].shape:
            raise UsageError(
                f"{path}: {name} must be {tuple(own[name].shape)}, got "
                f"{tuple(given[name].shape)}: the file is of another --model"
            )
    backbone.load_state_dict({name: given[name] for name in both}, strict=False)
    return Matched(
        both=tuple(both),
        only_model=tuple(name for name in own if name not in given and not _counter(name)),
        only_file=tuple(name for name in given if name not in own),
    )


def _counter(name: str) -> bool:
    """True for batch normalisation's count of batches, which old files lack and nothing uses."""
    return name.endswith("num_batches_tracked")


def _some(names: Mapping[str, object]) -> str:
    shown = [str(name) for name, _ in zip(names, range(3), strict=False)]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
