"""A training program in the shape of ReFit's: ``python -m tests.loaders.refit_trainer CONFIG``.

CONFIG is a YAML with ReFit's keys; what it leaves out has ReFit's defaults. The loaders come from
the drop-in and are used as ReFit's trainer uses them, and checkpoints hold what it saves and are
read by ``torch.load`` without options. The model is one number a pose parameter, on a CPU. What is
trained and measured is noted in LOGDIR/log.jsonl, the loggers' lines go to stderr.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from refit_shard.refit import get_dataloaders
from refit_shard.shards_spec.errors import RefitShardError
from tests.loaders.streams import items, names

VERTICES = 6890

Batch = dict[str, Any]


def read_config(path: str) -> CfgNode:
    """ReFit's defaults under the file's values."""
    cfg = CfgNode(
        {
            "SEED_VALUE": -1,
            "NUM_WORKERS": 4,
            "IMG_RES": 256,
            "LOGDIR": "",
            "EVAL_JOINTS": "smpl",
            "CHANGED": [],
            "DATASET": {},
            "TRAIN": {"BATCH_SIZE": 32, "START_EPOCH": 0, "END_EPOCH": 5, "MAX_STEP": 100000}
            | {"RESUME": "", "IS_FINETUNE": False, "VALID_STEP": 1000, "SAVE_STEP": 1000},
        }
    )
    cfg.set_new_allowed(True)
    cfg.merge_from_file(path)
    return cfg


class Model(torch.nn.Module):
    """Meshes (B, 6890, 3) from the images' mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))
        steps = torch.linspace(-1, 1, VERTICES)
        self.register_buffer("template", torch.stack([steps, steps**2, steps**3], 1))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """From normalised images (B, 3, H, W)."""
        colour = img.mean(dim=(2, 3))
        template: Any = self.template
        return template * (self.scale + 0.01 * colour)[:, None]


def tensors_of(batch: Batch) -> Batch:
    """What a trainer brings to its device."""
    return {key: value.to("cpu") for key, value in batch.items() if type(value) is torch.Tensor}


class Trainer:
    """Epochs over the train loader, with validation and checkpoints every so many steps."""

    def __init__(self, cfg: CfgNode, loaders: list[Any]) -> None:
        self.cfg = cfg
        self.train_loader, self.test_loader = loaders
        self.model = Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=100)
        self.start_epoch, self.epoch, self.global_step = cfg.TRAIN.START_EPOCH, 0, 0
        self.best_performance: Any = None
        self.log = (Path(cfg.LOGDIR) / "log.jsonl").open("a")
        if Path(cfg.TRAIN.RESUME).is_file():
            self.resume(cfg.TRAIN.RESUME)

    def note(self, **what: Any) -> None:
        """Add a line to the log."""
        self.log.write(json.dumps(what) + "\n")
        self.log.flush()

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return bool(self.global_step >= self.cfg.TRAIN.MAX_STEP)

    def train(self) -> None:
        """A validation, then epoch after epoch."""
        self.validate()
        for epoch in range(self.start_epoch, self.cfg.TRAIN.END_EPOCH):
            self.epoch = epoch
            self.train_one_epoch()
            self.train_loader.re_init()
            if self.is_done:
                break

    def train_one_epoch(self) -> None:
        """All batches that the loader gives for it."""
        for index, batch in enumerate(self.train_loader):
            moved = tensors_of(batch)
            assert moved["img"].shape[1:] == (3, self.cfg.IMG_RES, self.cfg.IMG_RES)
            loss = self.model(moved["img"]).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.lr_scheduler.step()
            self.global_step += 1
            step = {"epoch": self.epoch, "step": self.global_step, "loss": float(loss)}
            self.note(**step, names=names(batch), items=items(batch))
            self.validate_and_save(index)
            if self.is_done:
                break

    def validate_and_save(self, index: int) -> None:
        """Where it is time; the best result so far is saved, too."""
        performance = None
        if self.global_step % self.cfg.TRAIN.VALID_STEP == 0:
            performance = self.validate()
            if self.best_performance is None or performance < self.best_performance:
                self.best_performance = performance
                self.save(index, performance)
        if self.global_step % self.cfg.TRAIN.SAVE_STEP == 0:
            self.save(index, performance)

    def validate(self) -> Any:
        """The mean distance of the joints, mm: a number of numpy's, as ReFit has it."""
        dataset = self.test_loader.dataset
        regressor = dataset.J_regressor.to("cpu")
        errors, seen = np.zeros(len(dataset)), 0
        for batch in self.test_loader:
            moved = tensors_of(batch)
            with torch.no_grad():
                joints = regressor @ self.model(moved["img"])
            joints = joints - joints[:, :1]
            away = (joints - moved["pose_3d"][:, :17, :3]).norm(dim=-1).mean(dim=-1)
            errors[seen : seen + len(away)] = 1000 * away.numpy()
            seen += len(away)
        performance = errors[:seen].mean()
        self.note(validated=seen, of=len(dataset), performance=float(performance))
        return performance

    def save(self, index: int, performance: Any) -> None:
        """LOGDIR/checkpoint.pth.tar, with ReFit's keys."""
        content = {
            "epoch": self.epoch,
            "batch": index,
            "global_step": self.global_step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "dataperm": self.train_loader.sampler.dataset_perm,
            "performance": performance,
            "best_performance": self.best_performance,
        }
        torch.save(content, Path(self.cfg.LOGDIR) / "checkpoint.pth.tar")

    def resume(self, path: str) -> None:
        """Go on from a checkpoint, or begin anew with its weights (IS_FINETUNE)."""
        checkpoint = torch.load(path)
        self.model.load_state_dict(checkpoint["model"], strict=False)
        if self.cfg.TRAIN.IS_FINETUNE:
            return
        self.epoch = self.start_epoch = checkpoint["epoch"]
        self.global_step = checkpoint["global_step"]
        self.best_performance = checkpoint["best_performance"]
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.lr_scheduler.load_state_dict(checkpoint["lr_scheduler"])
        self.train_loader.load_checkpoint(checkpoint["batch"], checkpoint["dataperm"])


def main() -> int:
    """As above; an error of the loaders is one line."""
    cfg = read_config(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if cfg.SEED_VALUE >= 0:
        torch.manual_seed(cfg.SEED_VALUE)
        np.random.seed(cfg.SEED_VALUE)
    try:
        loaders = get_dataloaders(cfg, eval_joints=cfg.EVAL_JOINTS, changed=cfg.CHANGED)
        Trainer(cfg, loaders).train()
    except RefitShardError as error:
        sys.stderr.write(f"trainer: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
