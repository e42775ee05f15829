"""A Lightning data module on shards; training resumes exactly where a checkpoint was saved.

    data = ShardData("configs/config_bedlam.yaml", shards="data/shards", num_workers=8)
    Trainer(max_epochs=20, use_distributed_sampler=False).fit(model, data, ckpt_path="last")

Two things in Lightning (since 2.2; this was run with 2.6) need care. It saves and loads the state
of a training loader that has one, but not in a checkpoint saved between two epochs, so the stream
would begin again. And after a resume it takes ``len(loader)`` for the length of the whole epoch,
including the batches before the checkpoint. So here the data module keeps the state, and the
loader's length is always that of a whole epoch: Lightning decides where an epoch ends.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pytorch_lightning import LightningDataModule

from refit_shard import EvaluationLoader, StreamingLoader

Batch = dict[str, Any]
State = dict[str, Any]


class EndlessBatches(Iterator[Batch]):
    """The batches of a loader, one epoch after the other; ``len`` is the length of an epoch.

    ``steps_done`` counts the steps that the trainer has finished. If a state is saved in the middle
    of a step (by Slurm's signal, or after an error), it is the state before that step's batch,
    because the resumed trainer asks for this batch again.
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
        """Where the trainer is: after the batches whose steps it has finished."""
        within_step = self._steps_done() == self._step
        return self._before_batch if within_step else self._loader.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Go on where the state was saved.

        Raises:
            UsageError: the state is of a stream with other items.
        """
        self._loader.load_state_dict(state)
        self._batches, self._step = iter(()), -1


class ShardData(LightningDataModule):
    """Training batches in the ratios of ReFit's YAML, and each row of ``validation`` once.

    ``shards``: folder or URL with a folder for each dataset. ``validation``: the name of a dataset,
    or None. ``options``: those of :class:`refit_shard.StreamOptions`; ``batch_size`` is per rank.
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
        """Called by Lightning once the ranks are known, and before it loads a state."""
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
        """The same object each time, because it keeps the position in the stream."""
        assert self._batches is not None
        return self._batches

    def val_dataloader(self) -> list[EvaluationLoader]:
        """Each row once, in order and without augmentation; each rank gets a part of the rows."""
        if self._validation is None:
            return []
        where = f"{self._shards.rstrip('/')}/{self._validation}"
        options = replace(self._loader.options, where={})
        return [EvaluationLoader(self._validation, where, options)]

    def state_dict(self) -> State:
        """What Lightning puts into its checkpoints: the stream's state, a few KB of JSON."""
        assert self._batches is not None
        return self._batches.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Called by Lightning with the state from a checkpoint."""
        assert self._batches is not None
        self._batches.load_state_dict(state)
