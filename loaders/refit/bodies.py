"""Computes SMPL meshes for evaluation from the user's licensed model files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from refit_shard.body_models.smpl import (
    BETAS,
    MODEL_NAMES,
    PAGE,
    find_model,
    read_model,
    read_regressor,
)
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, local_path

H36M_JOINTS = 17


def find_models(folder: AnyPath) -> dict[int, Path]:
    """The model file of each gender below ``SMPL_MODEL_DIR``.

    Raises:
        UsageError: a file is missing; the message names it and says where to put it.
    """
    place = local_path(folder, "SMPL_MODEL_DIR")
    found, missing = {}, []
    for gender, name in MODEL_NAMES.items():
        path = find_model(place, gender)
        if path is None:
            missing.append(f"{name}.pkl (or .npz)")
        else:
            found[gender] = path
    if missing:
        raise UsageError(
            f"SMPL_MODEL_DIR {place}: missing {', '.join(missing)}; download them from {PAGE} and "
            'put them there, or continue without them with eval_joints="none"'
        )
    return found


def h36m_regressor(path: AnyPath) -> torch.Tensor:
    """The H36M joint regressor, float32 (17, V).

    Raises:
        UsageError: no such file.
        SourceError: the file does not contain such an array.
    """
    place = local_path(path, "JOINT_REGRESSOR_H36M")
    if not place.is_file():
        raise UsageError(
            f"JOINT_REGRESSOR_H36M {place}: no such file; SPIN's data package has it "
            "(J_regressor_h36m.npy); a trainer whose validation does not need it, unlike ReFit's, "
            'can pass eval_joints="none"'
        )
    return torch.from_numpy(read_regressor(place, H36M_JOINTS).astype(np.float32))


@dataclass
class Bodies:
    """The SMPL models of the three genders and the H36M regressor, on a device."""

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
        matrix = h36m_regressor(regressor)
        try:
            import smplx  # noqa: PLC0415
        except ImportError:
            raise UsageError(
                "meshes for evaluation need the smplx package: pip install 'refit-shard[smpl]', "
                'or continue without them with eval_joints="none"'
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
        """Joints (n, 17, 4) with confidence 1, and vertices (n, V, 3); metres, pelvis at 0.

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
