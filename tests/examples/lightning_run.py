"""A Lightning training that notes its batches, and saves a checkpoint at every moment there is.

python -m tests.examples.lightning_run FOLDER    on two ranks, which Lightning starts: the whole
                                                 training, then the rest from a checkpoint
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.hrnet_model import import_timm

import_timm()  # Lightning imports torchvision too, which may not fit this torch

from pytorch_lightning import LightningModule, Trainer  # noqa: E402

from examples.lightning_data import ShardData  # noqa: E402

EPOCHS = 3
Event = tuple[str, int, int, list[int], float]


class Net(LightningModule):
    """Notes what it is given. ``saved``: how many events each checkpoint comes after."""

    def __init__(self, checkpoints: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.events: list[Event] = []
        self.saved: dict[str, int] = {}
        self._checkpoints = checkpoints

    def _note(self, kind: str, batch: dict[str, Any], index: int) -> None:
        rows, total = batch["sample_index"].tolist(), float(batch["img"].double().sum())
        self.events.append((kind, self.current_epoch, index, rows, total))

    def _save(self, moment: str, *, repeated: int = 0) -> None:
        if self._checkpoints is not None and not self.trainer.sanity_checking:
            name = f"{len(self.events):03d}-{moment}.ckpt"
            self.trainer.save_checkpoint(self._checkpoints / name)
            self.saved[name] = len(self.events) - repeated

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        self._note("train", batch, index)
        self._save("within-step", repeated=1)
        mean: Tensor = batch["img"].mean()
        return self.weight.sum() * mean

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        if not self.trainer.sanity_checking:
            self._note("validate", batch, index)

    def on_train_batch_end(self, *_: Any) -> None:
        self._save("after-step")

    def on_validation_epoch_end(self) -> None:
        self._save("after-validation")

    def on_train_epoch_end(self) -> None:
        self._save("after-epoch")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Quick enough that each step counts."""
        return torch.optim.SGD(self.parameters(), 0.1)


def train(
    net: Net, data: ShardData, checkpoint: Path | None = None, *, devices: int = 1, **options: Any
) -> Trainer:
    """Fit on the CPU; three epochs, with a validation after every second step."""
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{"max_epochs": EPOCHS, "val_check_interval": 2, **options},
    )
    trainer.fit(net, data, ckpt_path=checkpoint)
    return trainer


def make_data(folder: Path, **options: Any) -> ShardData:
    """Batches of the small dataset in a folder."""
    how = {"batch_size": 2, "epoch_samples": 8, "res": 16, "num_workers": 1, **options}
    shards = str(folder / "shards")
    return ShardData(str(folder / "config.yaml"), shards=shards, validation="own", **how)


def run_two_ranks(folder: Path) -> None:
    """Write each rank's events of the whole training and of what followed a checkpoint."""
    whole, rest = Net(folder), Net()
    train(whole, make_data(folder), devices=2)
    name = sorted(whole.saved)[len(whole.saved) // 2]
    train(rest, make_data(folder), folder / name, devices=2)
    found = {"whole": whole.events, "rest": rest.events, "after": whole.saved[name]}
    (folder / f"rank{whole.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run_two_ranks(Path(sys.argv[1]))
