"""A Lightning data module on shards; training resumes exactly where a checkpoint was saved.

    data = ShardData("configs/config_bedlam.yaml", shards="data/shards", num_workers=8)
    Trainer(max_epochs=20, use_distributed_sampler=False).fit(model, data, ckpt_path="last")

Lightning (since 2.2; this was run with 2.6) saves and loads the state of a training loader that has
one, but not in a checkpoint that is saved between two epochs: training would start from the
beginning. After a resume it also takes the loader's ``len`` as the whole epoch, although it has
already counted the batches before the checkpoint. So the data module saves the state here, and the
loader's length is always that of a whole epoch: Lightning decides where an epoch ends, the stream
goes on.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pytorch_lightning import LightningDataModule

from refit_shard import EvaluationLoader, StreamingLoader

Batch = dict[str, Any]
State = dict[str, Any]


class EndlessBatches(Iterator[Batch]):
    """The batches of a loader, one epoch after another; ``len`` is the length of one epoch.

    ``steps_done`` returns the number of steps that the trainer has finished. A state that is saved
    during a step (on Slurm's signal, or after an error) is that before the step's batch, because
    the trainer will request this batch again.
    """

    def __init__(self, loader: StreamingLoader, steps_done: Callable[[], int]) -> None:
        self._loader = loader
        self._steps_done = steps_done
        self._length = len(loader)
        self._batches: Iterator[Batch] = iter(())
        self._before_batch: State = {}
        self._step = -1

    def __len__(self) -> int:
        return self._length

    def __next__(self) -> Batch:
        self._before_batch, self._step = self._loader.state_dict(), self._steps_done()
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            return next(self._batches)

    def state_dict(self) -> State:
        """The stream's state after the batches whose steps the trainer has finished."""
        within_step = self._steps_done() == self._step
        return self._before_batch if within_step else self._loader.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue from a state.

        Raises:
            UsageError: the state is of a stream with other items.
        """
        self._loader.load_state_dict(state)
        self._batches, self._step = iter(()), -1


class ShardData(LightningDataModule):
    """Training batches with the ratios of a training YAML, and each row of ``validation`` once.

    Args:
        config: path of the training YAML.
        shards: folder or URL that holds the datasets' folders.
        validation: the dataset for validation, or None.
        options: fields of :class:`refit_shard.StreamOptions`; ``batch_size`` is that of one rank.
    """

    def __init__(
        self,
        config: str,
        *,
        shards: str = "data/shards",
        validation: str | None = "3dpw_test_sub",
        **options: Any,
    ) -> None:
        super().__init__()
        self._config = config
        self._shards = shards
        self._validation = validation
        self._options = options
        self._loader: StreamingLoader
        self._batches: EndlessBatches | None = None

    def setup(self, stage: str) -> None:
        """Open the loader; called by Lightning once ranks are known, before it loads a state."""
        del stage
        if self._batches is None:
            self._loader = StreamingLoader.from_config(
                self._config, shards=self._shards, **self._options
            )
            self._batches = EndlessBatches(self._loader, self._steps_done)

    def _steps_done(self) -> int:
        assert self.trainer is not None
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()["processed"])

    def train_dataloader(self) -> EndlessBatches:
        """The batches; always the same object, because it holds the stream's position."""
        assert self._batches is not None
        return self._batches

    def val_dataloader(self) -> list[EvaluationLoader]:
        """The validation rows in order, without augmentation, split over the ranks."""
        if self._validation is None:
            return []
        where = f"{self._shards.rstrip('/')}/{self._validation}"
        options = replace(self._loader.options, where={})
        return [EvaluationLoader(self._validation, where, options)]

    def state_dict(self) -> State:
        """The stream's state for Lightning's checkpoints, a few KB of JSON values."""
        assert self._batches is not None
        return self._batches.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue from the state in a checkpoint; called by Lightning."""
        assert self._batches is not None
        self._batches.load_state_dict(state)
