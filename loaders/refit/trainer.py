"""Drop-in loaders for ReFit's trainer: change one import and train on shards.

``from loaders.refit import get_dataloaders`` in place of ReFit's own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.refit.smpl import Bodies
from refit_shard.loaders.stream.config import config_value, parse_config
from refit_shard.loaders.stream.loader import StreamingLoader
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, location

DEFAULT_SHARDS = "data/shards"
VALIDATION_SET = "3dpw_test_sub"
VALIDATION_BATCH = 32
DEFAULT_MODELS = "data/smpl"
DEFAULT_REGRESSOR = "data/smpl/J_regressor_h36m.npy"


class Sampler:
    """``train_loader.sampler``: its ``dataset_perm`` is the loader's state, when it is asked."""

    def __init__(self, loader: StreamingLoader) -> None:
        self._loader = loader

    @property
    def dataset_perm(self) -> dict[str, Any]:
        """The state after the batches that were received so far."""
        return self._loader.state_dict()


class TrainLoader(StreamingLoader):
    """A :class:`StreamingLoader` with the names that ReFit's trainer calls."""

    @property
    def sampler(self) -> Sampler:
        """Where the trainer finds what it saves."""
        return Sampler(self)

    def load_checkpoint(self, batch_idx: int, dataset_perm: Mapping[str, Any]) -> None:
        """Go on at the first batch that was not received when the checkpoint was saved.

        ``batch_idx`` is not needed: the state knows its place.

        Raises:
            UsageError: the checkpoint was written by ReFit's own loader, or does not fit.
        """
        del batch_idx
        if not isinstance(dataset_perm, Mapping):
            raise UsageError(
                "load_checkpoint: this checkpoint was written by ReFit's own loader (a list of "
                "indices); its place in the data cannot be taken over: load the weights and begin "
                "the data anew, by leaving load_checkpoint out"
            )
        self.load_state_dict(dataset_perm)

    def re_init(self) -> None:
        """Called by the trainer after an epoch; epochs go on by themselves."""


def get_dataloaders(
    cfg: Any,
    *,
    options: StreamOptions | None = None,
    eval_joints: Literal["smpl", "none"] = "smpl",
    smpl_model_dir: AnyPath = DEFAULT_MODELS,
    joint_regressor: AnyPath = DEFAULT_REGRESSOR,
    device: torch.device | str = "cpu",
) -> list[Any]:
    """``[train_loader, test_loader]`` for a ReFit config: yacs's, OmegaConf's, or nested mappings.

    Reads DATASET.LIST and PARTITION, TRAIN.BATCH_SIZE, NUM_WORKERS, SEED_VALUE and IMG_RES; the
    shards are at ``cfg.DATASET.SHARDS``, else ``data/shards``. ``options`` gives everything else.
    The test loader reads all of 3dpw_test_sub, each row once and as it is: ``where``, ``on_error``,
    the policy, mixing and the epoch's length are training's alone, and a damaged sample of it
    raises. ``eval_joints="none"`` leaves out its SMPL meshes, which are computed on ``device``.

    Raises:
        UsageError: the config or an option is wrong, or shards or SMPL files are missing.
        FormatError: shards of another version.
    """
    read = parse_config(cfg, "cfg")
    stated = config_value(cfg, "DATASET", "SHARDS", where="cfg")
    shards = location(stated or DEFAULT_SHARDS, "cfg: DATASET.SHARDS")
    chosen = replace(options or StreamOptions(), **read.stated)
    if eval_joints not in ("smpl", "none"):
        raise UsageError(f"eval_joints: must be 'smpl' or 'none', got {eval_joints!r}")
    bodies = None
    if eval_joints == "smpl":
        bodies = Bodies.open(smpl_model_dir, joint_regressor, device)
    train = TrainLoader(read.places(shards), chosen)
    test = EvaluationLoader(
        VALIDATION_SET,
        f"{shards.rstrip('/')}/{VALIDATION_SET}",
        replace(chosen, batch_size=VALIDATION_BATCH, image="normalized", where={}),
        bodies,
    )
    return [train, test]
