"""A Lightning data module on shards, whose training goes on exactly where a checkpoint was saved.

    data = ShardData("configs/config_bedlam.yaml", shards="data/shards", num_workers=8)
    Trainer(max_epochs=20, use_distributed_sampler=False).fit(model, data, ckpt_path="last")

Lightning (since 2.2; this was run with 2.6) saves and loads the state of a training loader that has
one, but not with a checkpoint that was saved between two epochs: such a training would begin anew.
It also takes what ``len`` says after a resume for the whole epoch, of which it has already counted
the batches before the checkpoint. So here the data module keeps the state, and the loader's length
is always a whole epoch's: Lightning says where an epoch ends, the stream has none.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pytorch_lightning import LightningDataModule

from refit_shard import EvaluationLoader, StreamingLoader

Batch = dict[str, Any]
State = dict[str, Any]


class EndlessBatches(Iterator[Batch]):
    """The batches of a loader, one epoch after the other; ``len`` is an epoch's.

    ``steps_done`` counts the steps that the trainer has finished: a state that is saved within a
    step (by Slurm's signal, or after an error) is the one before that step's batch, as the trainer
    will ask for it again.
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
        """Go on there.

        Raises:
            UsageError: the state is of a stream with other items.
        """
        self._loader.load_state_dict(state)
        self._batches, self._step = iter(()), -1


class ShardData(LightningDataModule):
    """Training batches in the ratios of ReFit's YAML, and each row of ``validation`` once.

    ``shards``: folder or URL with a folder of each dataset. ``validation``: one of them, or None.
    ``options``: of :class:`refit_shard.StreamOptions`; ``batch_size`` is a rank's.
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
        """Always the same one, as it knows its place."""
        assert self._batches is not None
        return self._batches

    def val_dataloader(self) -> list[EvaluationLoader]:
        """Rows as they are, in their order; on several ranks each has its part of them."""
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
        """Called by Lightning with a checkpoint's."""
        assert self._batches is not None
        self._batches.load_state_dict(state)
