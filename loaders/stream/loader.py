"""The streaming loader: batches in a fixed order, made by worker threads, resumable at any batch.

Everything in a batch is a function of (seed, position). So the number of workers, ranks or
prefetched batches does not change it, and a saved state is a position with the options that must be
the same.
"""

import time
import weakref
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.loaders.stream.batches import BatchMaker
from refit_shard.loaders.stream.config import read_config
from refit_shard.loaders.stream.epochs import Epochs, EpochShape
from refit_shard.loaders.stream.iteration import Iteration
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.loaders.stream.ranks import find_rank
from refit_shard.loaders.stream.replaced import Replaced
from refit_shard.loaders.stream.seeds import drawn_seed
from refit_shard.loaders.stream.source import as_sources
from refit_shard.loaders.stream.state import Place, identify, make_state, read_state, seed_of
from refit_shard.loaders.stream.transform import BatchTransform
from refit_shard.loaders.stream.workers import Made
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.forks import ForkLock
from refit_shard.shards_spec.storage.paths import AnyPath


class StreamingLoader:
    """Batches from several datasets in fixed ratios; see :class:`refit_shard.StreamOptions`.

    Each iteration gives one epoch. The next iteration begins after the last batch that was
    received, also if the loop left the epoch early. A batch is a dict of tensors and lists, like
    PyTorch's default collate of ReFit's items.

    Args:
        sources: Maps the name of each dataset to (path or URL of its shards, ratio).
        options: How the stream is mixed, augmented and delivered; None for the defaults.
        draw_seed: True to use a random seed, the same on all ranks, instead of ``options.seed``. A
            state that is loaded later replaces it by its own seed.

    Raises:
        UsageError: options, ratios or sources are wrong.
        FormatError: the shards have another format version.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[AnyPath, float]],
        options: StreamOptions | None = None,
        *,
        draw_seed: bool = False,
    ) -> None:
        self.options = options or StreamOptions()
        self._rank = find_rank(self.options)
        self._draws_seed = draw_seed
        if draw_seed:
            self.options = replace(self.options, seed=drawn_seed(self._rank))
        self._sources = as_sources(sources)
        self._maker = BatchMaker(self._sources, self.options)
        self._epoch_shape = EpochShape(
            samples=self.options.epoch_samples or self._maker.largest,
            batch_size=self.options.batch_size,
            world_size=self._rank.world_size,
            drop_last=self.options.drop_last is not False,
        )
        self._epochs = Epochs(self._epoch_shape)
        self._iteration: weakref.ref[Iteration] | None = None
        self._turn = ForkLock()  # held by a thread that gets a batch, or goes elsewhere
        self._received = np.zeros(len(sources), np.int64)
        self._replaced = Replaced()
        self._seconds = 0.0
        self._waited = 0.0
        self._clock = 0.0

    def __getstate__(self) -> Any:
        """Refuse pickling and copying: two copies would read the same part of one stream.

        Raises:
            UsageError: always.
        """
        raise UsageError("a loader cannot be pickled or copied; make one in each process")

    @classmethod
    def from_config(
        cls,
        config: AnyPath,
        *,
        shards: AnyPath = "data/shards",
        image: Literal["normalized", "bfloat16", "uint8"] = "normalized",
        res: int | None = None,
        compat: Literal["refit"] | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        epoch_samples: int | None = None,
        num_workers: int | None = None,
        prefetch: int = 2,
        rank: int | None = None,
        world_size: int | None = None,
        mixing: Literal["exact", "iid"] = "exact",
        augment: bool = True,
        policy: AugmentationPolicy | None = None,
        transform: BatchTransform | None = None,
        occluders: AnyPath | None = None,
        on_error: Literal["raise", "replace"] = "raise",
        drop_last: bool | None = None,
        where: Mapping[str, Any] | None = None,
        split: tuple[str, float] | tuple[str, float, int] | None = None,
        window: int | None = None,
        cache: AnyPath | None = None,
        cache_bytes: int | str | None = None,
    ) -> "StreamingLoader":
        """A loader for the datasets and ratios of a ReFit YAML.

        All arguments except ``config`` and ``shards`` are options of
        :class:`refit_shard.StreamOptions`. Five of them default to values of the config.

        Args:
            config: Path of the YAML file.
            shards: Folder or URL that contains one folder of shards for each dataset.
            res: None for the config's IMG_RES, or the option's default if it is not stated.
            batch_size: None for the config's TRAIN.BATCH_SIZE, or the option's default.
            seed: None for the config's SEED_VALUE, or the option's default. If SEED_VALUE is
                negative, a random seed is drawn.
            num_workers: None for the config's NUM_WORKERS, or the option's default.
            policy: None for the config's ``augmentation``, or the option's default.

        Raises:
            UsageError: the file or an option is wrong, or shards are missing.
        """
        options = StreamOptions(
            image=image,
            compat=compat,
            epoch_samples=epoch_samples,
            prefetch=prefetch,
            rank=rank,
            world_size=world_size,
            mixing=mixing,
            augment=augment,
            transform=transform,
            occluders=occluders,
            on_error=on_error,
            drop_last=drop_last,
            where=where,
            split=split,
            window=window,
            cache=cache,
            cache_bytes=cache_bytes,
        )
        given = {
            **{"res": res, "batch_size": batch_size, "seed": seed},
            **{"num_workers": num_workers, "policy": policy},
        }
        read = read_config(config)
        stated = read.stated | {name: value for name, value in given.items() if value is not None}
        return cls(
            read.places(shards),
            replace(options, **stated),
            draw_seed=read.draws_seed and seed is None,
        )

    def __repr__(self) -> str:
        now, options = self._epochs, self.options
        lines = [f"{source}, ratio {source.ratio:.4g}" for source in self._maker.sources]
        lines += [
            f"batch_size {options.batch_size} on {self._rank}, num_workers {options.num_workers}",
            f"epoch {now.epoch} from position {now.begin}, now at {now.position}",
        ]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    @property
    def global_batch(self) -> int:
        """Number of samples in a step, all ranks together."""
        return self._epoch_shape.step

    def _running(self) -> Iteration | None:
        """The current iteration, or None."""
        found = self._iteration() if self._iteration is not None else None
        return found if found is not None and found.is_running else None

    def _end_iteration(self, what: str) -> None:
        running = self._running()
        if running is not None:
            running.end_by(what)

    def __len__(self) -> int:
        """Number of batches of the current iteration, else of the next one; same on each rank.

        After a resume in the middle of an epoch it is the number of batches left in the epoch.
        """
        running = self._running()
        return self._epochs.coming if running is None else running.steps

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. Without this call epochs simply follow one another.

        The call does nothing if ``epoch`` is the next epoch anyway, or the one that was resumed in
        its middle. Otherwise it ends the current iteration. The next epoch begins where the current
        one was left, and each epoch after that one whole epoch later. An earlier epoch is repeated
        from its beginning.

        Args:
            epoch: Number of the epoch, from 0.

        Raises:
            UsageError: ``epoch`` is not a whole number of at least 0, or the epoch would begin
                before the stream or before the position at which the ratios were changed.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
            raise UsageError(f"set_epoch: must be a whole number of at least 0, got {epoch!r}")
        with self._turn:
            if self._epochs.set_epoch(int(epoch)):
                self._end_iteration("set_epoch")

    def __iter__(self) -> Iteration:
        self._rank.check_unchanged(self.options)
        with self._turn:
            self._end_iteration("a newer one")
            return self._begin()

    def _begin(self) -> Iteration:
        """The next iteration."""
        first, end = self._epochs.start()
        replaced, received = self._replaced.count, int(self._received.sum())

        def finish() -> None:
            self._epochs.finish()
            self._replaced.end_epoch(replaced, int(self._received.sum()) - received)

        iteration = Iteration(
            self._maker.batches(self._epoch_shape.slices(first, end, self._rank.rank)),
            self._epoch_shape.steps(end - first),
            self._turn,
            self._receive,
            finish,
        )
        self._iteration = weakref.ref(iteration)
        self._clock = time.perf_counter()
        return iteration

    def _receive(self, made: Made, asked: float) -> None:
        """Count a batch just before it is returned to the loop."""
        self._received += made.counts
        self._replaced.receive(made.replaced)
        self._epochs.receive()
        now = time.perf_counter()
        self._waited += now - asked
        self._seconds += now - self._clock
        self._clock = now

    def state_dict(self) -> dict[str, Any]:
        """The state after the last batch that the loop received, as JSON values.

        Batches that were prefetched but not received do not count.
        """
        now = self._epochs
        place = Place(now.epoch, now.begin, now.position, self._maker.mixer.origin)
        return make_state(self._identity(), place, self._maker.mixer)

    def _identity(self) -> dict[str, Any]:
        return identify(self.options, self._maker.sources, self._maker.occluders)

    def load_state_dict(self, state: Mapping[str, Any], changed: Collection[str] = ()) -> None:
        """Continue after the last batch that was received when the state was saved.

        The numbers of ranks and workers, ``batch_size``, ``epoch_samples``, ``drop_last`` and
        ``on_error`` may differ from those of the saved loader. The current iteration ends.

        The stream continues at the saved position, each source at its next draw. Changed ratios
        apply exactly from that position on.

        Args:
            state: A state from :meth:`state_dict`.
            changed: What was changed on purpose since the state was saved: any of ``"policy"``,
                ``"transform"``, ``"ratios"`` and ``"labels"`` (your own labels in the shards).

        Raises:
            UsageError: the state is damaged, or it is from a stream with other items; the message
                says what differs.
        """
        identity = self._identity()
        if self._draws_seed:
            identity["seed"] = seed_of(state, self.options.seed)
        place = read_state(state, identity, changed)
        with self._turn:
            self._end_iteration("load_state_dict")
            if identity["seed"] != self.options.seed:
                self.options = replace(self.options, seed=identity["seed"])
                self._maker = BatchMaker(self._sources, self.options)
            self._maker.mix_from(place.origin)
            earliest = place.origin.position
            self._epochs.resume(place.epoch, place.epoch_start, place.position, earliest)

    def stats(self) -> dict[str, Any]:
        """Statistics of what this rank has received since the loader was made.

        ``samples``: number received of each source. ``passes``: passes over each source, all ranks
        together. ``samples_per_second``: the rate while iterating. ``waiting``: share of that time
        in which the loop waited for a batch. ``replaced``: number of damaged samples replaced.
        ``replaced_first``: for the first ten of these, where the sample is and what is wrong.
        """
        names = [source.name for source in self._maker.sources]
        seconds = max(self._seconds, 1e-9)
        return {
            "samples": dict(zip(names, self._received.tolist(), strict=True)),
            "passes": self._maker.passes(self._epochs.position),
            "replaced": self._replaced.count,
            "replaced_first": list(self._replaced.first),
            "samples_per_second": int(self._received.sum()) / seconds,
            "waiting": self._waited / seconds,
        }
