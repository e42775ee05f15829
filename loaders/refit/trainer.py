"""Drop-in loaders for ReFit's trainer: change one import and train on shards.

``from refit_shard.refit import get_dataloaders`` in place of ReFit's own.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from refit_shard.loaders.refit.bodies import Bodies, h36m_regressor
from refit_shard.loaders.refit.checkpoints import admit_numbers
from refit_shard.loaders.refit.evaluation import NO_REGRESSOR, EvaluationLoader
from refit_shard.loaders.stream.config import config_value, parse_config
from refit_shard.loaders.stream.loader import StreamingLoader
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, local_path, location

logger = logging.getLogger(__name__)

DEFAULT_SHARDS = "data/shards"
VALIDATION_SET = "3dpw_test_sub"
VALIDATION_BATCH = 32
DEFAULT_MODELS = "data/smpl"
DEFAULT_REGRESSOR = "data/smpl/J_regressor_h36m.npy"


class Sampler:
    """``train_loader.sampler`` for ReFit's trainer, which saves its ``dataset_perm``."""

    def __init__(self, loader: StreamingLoader) -> None:
        self._loader = loader

    @property
    def dataset_perm(self) -> dict[str, Any]:
        """The loader's state after the batches received so far."""
        return self._loader.state_dict()


class TrainLoader(StreamingLoader):
    """A :class:`StreamingLoader` with the attributes and methods that ReFit's trainer uses.

    Args:
        sources: Maps the name of each dataset to (path or URL of its shards, ratio).
        options: How the stream is mixed, augmented and delivered.
        draw_seed: True to use a random seed instead of ``options.seed``.
        changed: What may differ from a loaded checkpoint, as in ``load_state_dict``.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[AnyPath, float]],
        options: StreamOptions | None = None,
        *,
        draw_seed: bool = False,
        changed: Collection[str] = (),
    ) -> None:
        super().__init__(sources, options, draw_seed=draw_seed)
        self._changed = changed

    @property
    def sampler(self) -> Sampler:
        """The object from which the trainer reads the state that it saves."""
        return Sampler(self)

    def load_checkpoint(self, batch_idx: int, dataset_perm: Mapping[str, Any]) -> None:
        """Continue at the first batch that was not received when the checkpoint was saved.

        The trainer begins with the epoch in which the checkpoint was saved; if that was at the
        epoch's last batch, the first iteration is empty.

        Args:
            batch_idx: Ignored, because the state contains the position.
            dataset_perm: The loader's state, saved from ``sampler.dataset_perm``.

        Raises:
            UsageError: the checkpoint was written by ReFit's own loader, or is of another stream.
        """
        del batch_idx
        if not isinstance(dataset_perm, Mapping):
            raise UsageError(
                "load_checkpoint: this checkpoint was written by ReFit's own loader (a list of "
                "indices), so its position in the data cannot be restored: with TRAIN.IS_FINETUNE: "
                "True beside TRAIN.RESUME the trainer loads its weights and begins anew"
            )
        self.load_state_dict(dataset_perm, self._changed)
        self.set_epoch(dataset_perm["epoch"])

    def re_init(self) -> None:
        """Do nothing. The trainer calls this after an epoch; the next one follows by itself."""


def get_dataloaders(
    cfg: Any,
    *,
    options: StreamOptions | None = None,
    eval_joints: Literal["smpl", "none"] = "smpl",
    smpl_model_dir: AnyPath = DEFAULT_MODELS,
    joint_regressor: AnyPath = DEFAULT_REGRESSOR,
    device: torch.device | str = "cpu",
    changed: Collection[str] = (),
) -> list[Any]:
    """Make ``[train_loader, test_loader]`` for a ReFit config.

    Reads DATASET.LIST and PARTITION, TRAIN.BATCH_SIZE, NUM_WORKERS, SEED_VALUE, IMG_RES and
    ``augmentation`` (fields of :class:`refit_shard.AugmentationPolicy`). The shards are at
    ``cfg.DATASET.SHARDS``, else ``data/shards``. With a negative SEED_VALUE a random seed is drawn
    and logged; a resumed checkpoint replaces it by its own seed.

    The test loader reads all rows of 3dpw_test_sub once, without augmentation. ``where``,
    ``split``, ``on_error``, the policy, the transform, mixing and ``epoch_samples`` apply to
    training only; a damaged sample in the test data raises.

    ``torch.load`` is also allowed to read numpy's numbers, which ReFit's checkpoints contain.

    Args:
        cfg: The config: of yacs, of OmegaConf, or nested mappings.
        options: All options that the config does not state. The last, smaller batch of an epoch is
            kept as in ReFit, unless ``drop_last=True``.
        eval_joints: ``"none"`` for a test loader without SMPL meshes. ``pose_3d`` is then that of
            the labels, so the errors that ReFit's validation logs are meaningless.
        smpl_model_dir: Folder of the SMPL models.
        joint_regressor: Path of ``J_regressor_h36m.npy`` of SPIN's data package.
        device: Device on which the meshes are computed.
        changed: What may differ from the checkpoint that the trainer resumes: ``"ratios"`` after
            an edit of PARTITION, ``"policy"``, ``"transform"``, ``"labels"``.

    Raises:
        UsageError: the config or an option is wrong, or shards or SMPL files are missing.
        FormatError: the shards have another format version.
    """
    read = parse_config(cfg, "cfg")
    stated = config_value(cfg, "DATASET", "SHARDS", where="cfg")
    shards = location(stated or DEFAULT_SHARDS, "cfg: DATASET.SHARDS")
    given = options or StreamOptions()
    chosen = replace(given, drop_last=bool(given.drop_last), **read.stated)
    if eval_joints not in ("smpl", "none"):
        raise UsageError(f"eval_joints: must be 'smpl' or 'none', got {eval_joints!r}")
    bodies = regressor = None
    if eval_joints == "smpl":
        bodies = Bodies.open(smpl_model_dir, joint_regressor, device)
    elif local_path(joint_regressor, "joint_regressor").is_file():
        regressor = h36m_regressor(joint_regressor)
    else:
        logger.warning('eval_joints="none": %s', NO_REGRESSOR)
    admit_numbers()
    train = TrainLoader(read.places(shards), chosen, draw_seed=read.draws_seed, changed=changed)
    test = EvaluationLoader(
        VALIDATION_SET,
        f"{shards.rstrip('/')}/{VALIDATION_SET}",
        replace(chosen, batch_size=VALIDATION_BATCH, image="normalized", where=None, split=None),
        bodies,
        regressor,
    )
    return [train, test]
