"""The training loop of the example: steps, log, checkpoints, and the error on validation rows."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.hrnet_losses import Losses, LossWeights
from examples.hrnet_model import HumanModel, Prediction, from_hips, read_tensors
from refit_shard import finalize
from refit_shard.loaders.refit.trainer import TrainLoader
from refit_shard.shards_spec.errors import RefitShardError, StorageError, UsageError

CHECKPOINT_VERSION = 1
MAX_GRADIENT = 4.0  # largest norm, as ReFit's CLIP_NORM

# Positions of SPIN's first 14 joints in the 17 joints of H36M's regressor.
H36M_TO_SPIN = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

Batch = dict[str, Any]


@dataclass
class Trainer:
    """A model in training: with its optimizer, losses, loader, and the number of finished steps.

    ``amp``: use bfloat16 in the backbone.
    """

    model: HumanModel
    optimizer: torch.optim.Optimizer
    weights: LossWeights
    loader: TrainLoader
    device: torch.device
    amp: bool = True
    step: int = 0

    @classmethod
    def make(
        cls,
        model: HumanModel,
        weights: LossWeights,
        loader: TrainLoader,
        device: torch.device,
        *,
        lr: float,
        amp: bool,
    ) -> "Trainer":
        """A trainer with a new Adam optimizer; moves the model to the device."""
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        return cls(model, optimizer, weights, loader, device, amp)

    def predict(self, images: Tensor) -> Prediction:
        """The prediction for ``images`` (B, 3, H, W) on the device."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp):
            images = images.contiguous(memory_format=torch.channels_last)
            predicted: Prediction = self.model(images)
            return predicted

    def train_step(self, batch: Batch) -> Losses:
        """Train one step on a uint8 batch of the loader; returns its losses, detached."""
        self.model.train()
        ready = finalize(batch, self.device)
        losses = self.weights(self.predict(ready["img"]), ready)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        self.step += 1
        return Losses(*(value.detach() for value in losses))

    def run(
        self, steps: int, *, checkpoint: Path | None = None, save_every: int, log_every: int
    ) -> None:
        """Train until ``steps`` steps are done, in as many epochs as needed.

        Raises:
            RefitShardError: the loss is no longer finite.
        """
        while self.step < steps:
            for batch in self.loader:
                losses = self.train_step(batch)
                if self.step % log_every == 0 or self.step == steps:
                    self._log(losses, steps)
                if checkpoint and (self.step % save_every == 0 or self.step == steps):
                    self.save(checkpoint)
                if self.step == steps:
                    break

    def _log(self, losses: Losses, steps: int) -> None:
        """Print one line; speed and waiting are means since the start of the program."""
        total, kpt2d, kpt3d, smpl = torch.stack(list(losses)).tolist()
        stats = self.loader.stats()
        print(
            f"step {self.step}/{steps}  loss {total:.4f} "
            f"(2D {kpt2d:.4f}, 3D {kpt3d:.4f}, SMPL {smpl:.4f})  "
            f"{stats['samples_per_second']:.1f} samples/s  waiting {stats['waiting']:.1%}",
            flush=True,
        )
        if not torch.isfinite(losses.total):
            raise RefitShardError(
                f"step {self.step}: the loss is {total}; lower --lr, or use --no-amp"
            )

    def save(self, path: Path) -> None:
        """Write a checkpoint and rename it when it is complete.

        Raises:
            StorageError: the checkpoint cannot be written.
        """
        content = {
            "version": CHECKPOINT_VERSION,
            "backbone": self.model.name,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
        }
        part = path.with_name(f".{path.name}.part")  # replaces that of a run that was killed
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        except OSError as error:
            raise StorageError(f"--checkpoint {path}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            UsageError: the checkpoint is not of this program, this model or these shards.
        """
        content = read_tensors(path)
        if content.get("version") != CHECKPOINT_VERSION:
            raise UsageError(
                f"--checkpoint {path}: not a checkpoint of this version of the program"
            )
        if content["backbone"] != self.model.name:
            raise UsageError(
                f"--checkpoint {path}: must be of --model {self.model.name}, got "
                f"{content['backbone']}"
            )
        self.loader.load_state_dict(content["loader"])
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]


@torch.no_grad()
def evaluate(trainer: Trainer, batches: Iterable[Batch]) -> tuple[float, int]:
    """Mean error of joints in mm, relative to the middle of the hips, and the number of labelled
    rows.

    Labels of 17 joints are H36M's, regressed from the mesh; the first 14 of SPIN's joints are
    compared with them, although the two define joints slightly differently. Labels of 24 joints are
    SPIN's.
    """
    trainer.model.eval()
    distances, joints, rows = 0.0, 0.0, 0
    for batch in batches:
        truth: Tensor = batch["pose_3d"]
        known = torch.ones(len(truth)) if truth.shape[1] == 17 else batch["has_pose_3d"]
        truth = truth[:, H36M_TO_SPIN] if truth.shape[1] == 17 else truth
        predicted = trainer.predict(batch["img"].to(trainer.device)).joints.cpu()
        difference = from_hips(predicted[:, : truth.shape[1]]) - from_hips(truth[:, :, :3])
        weight = (truth[:, :, 3] > 0) * (known == 1)[:, None]
        distances += float((torch.linalg.vector_norm(difference, dim=2) * weight).sum())
        joints += float(weight.sum())
        rows += int(weight.any(dim=1).sum())
    return 1000.0 * distances / max(joints, 1.0), rows
