"""The stream: positions become batches, by worker threads, in order, resumable anywhere.

Everything that a batch holds is a function of (seed, position). So the number of workers, ranks
or prefetched batches changes nothing, and a state is a position and what must agree with it.
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
from refit_shard.loaders.stream.options import REFIT_POLICY, StreamOptions
from refit_shard.loaders.stream.ranks import find_rank
from refit_shard.loaders.stream.replaced import Replaced
from refit_shard.loaders.stream.seeds import drawn_seed
from refit_shard.loaders.stream.source import as_sources
from refit_shard.loaders.stream.state import Place, identify, make_state, read_state, seed_of
from refit_shard.loaders.stream.transform import BatchTransform
from refit_shard.loaders.stream.workers import Made
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath


class StreamingLoader:
    """Batches from several data sets in fixed ratios; see :class:`refit_shard.StreamOptions`.

    Iterating gives one epoch; the next iteration gives the next one, which begins where the last
    batch was received, also after leaving one early. A batch is a dict as PyTorch's default collate
    makes of ReFit's items.

    Args:
        sources: Name to (path or URL of its shards, ratio).
        options: How the stream is mixed, augmented and delivered; None for the defaults.
        draw_seed: Take a random seed instead of the options', the same on all ranks; that of a
            state which is loaded then takes its place.

    Raises:
        UsageError: options, ratios or sources are wrong.
        FormatError: shards of another version.
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
        self._received = np.zeros(len(sources), np.int64)
        self._replaced = Replaced()
        self._seconds = 0.0
        self._waited = 0.0
        self._clock = 0.0

    def __getstate__(self) -> Any:
        """A loader is not copied: two would read the same part of one stream.

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
        policy: AugmentationPolicy = REFIT_POLICY,
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
        """A loader from ReFit's YAML.

        Args:
            config: The YAML's path.
            shards: Folder or URL that holds a folder of each data set.
            res: As all that follow, an option of :class:`refit_shard.StreamOptions`. None for the
                config's IMG_RES, or where it states none for the option's default.
            batch_size: The same of TRAIN.BATCH_SIZE.
            seed: The same of SEED_VALUE; where that is negative, a seed is drawn.
            num_workers: The same of NUM_WORKERS.

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
            policy=policy,
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
        given = {"res": res, "batch_size": batch_size, "seed": seed, "num_workers": num_workers}
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
        """Samples of all ranks in a step."""
        return self._epoch_shape.step

    def _running(self) -> Iteration | None:
        """The iteration that is going on."""
        found = self._iteration() if self._iteration is not None else None
        return found if found is not None and found.is_running else None

    def _end_iteration(self, what: str) -> None:
        running = self._running()
        if running is not None:
            running.end_by(what)

    def __len__(self) -> int:
        """Batches of the iteration that is going on, else of the next one; the same on each rank.

        After a resume in the middle of an epoch that is what is left of it.
        """
        running = self._running()
        return self._epochs.coming if running is None else running.steps

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. This need not be called: epochs follow one another.

        For the epoch that comes next, or that was resumed in its middle, it does nothing. Otherwise
        an iteration that is going on ends. The epoch after this one begins where this one was left,
        epoch ``epoch + k`` k whole epochs later; an earlier one is repeated from its beginning.

        Args:
            epoch: Its number, from 0.

        Raises:
            UsageError: not a whole number of at least 0, or the epoch would begin before the stream
                or before the ratios were changed.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
            raise UsageError(f"set_epoch: must be a whole number of at least 0, got {epoch!r}")
        if self._epochs.set_epoch(int(epoch)):
            self._end_iteration("set_epoch")

    def __iter__(self) -> Iteration:
        self._rank.check_unchanged(self.options)
        self._end_iteration("a newer one")
        first, end = self._epochs.start()
        replaced, received = self._replaced.count, int(self._received.sum())

        def finish() -> None:
            self._epochs.finish()
            self._replaced.end_epoch(replaced, int(self._received.sum()) - received)

        iteration = Iteration(
            self._maker.batches(self._epoch_shape.slices(first, end, self._rank.rank)),
            self._epoch_shape.steps(end - first),
            self._receive,
            finish,
        )
        self._iteration = weakref.ref(iteration)
        self._clock = time.perf_counter()
        return iteration

    def _receive(self, made: Made, asked: float) -> None:
        """Count a batch that is handed over."""
        self._received += made.counts
        self._replaced.receive(made.replaced)
        self._epochs.receive()
        now = time.perf_counter()
        self._waited += now - asked
        self._seconds += now - self._clock
        self._clock = now

    def state_dict(self) -> dict[str, Any]:
        """Where the training loop is: what it has received, not what was made ahead."""
        now = self._epochs
        place = Place(now.epoch, now.begin, now.position, self._maker.mixer.origin)
        return make_state(self._identity(), place, self._maker.mixer)

    def _identity(self) -> dict[str, Any]:
        return identify(self.options, self._maker.sources, self._maker.occluders)

    def load_state_dict(self, state: Mapping[str, Any], changed: Collection[str] = ()) -> None:
        """Go on after the last batch that was received when the state was taken.

        The number of ranks and of workers may be another, as may ``batch_size``, ``epoch_samples``,
        ``drop_last`` and ``on_error``. An iteration that is going on ends.

        The stream goes on at the same position, each source at its own next draw; changed ratios
        hold exactly from there.

        Args:
            state: What :meth:`state_dict` gave.
            changed: Which of ``"policy"``, ``"transform"``, ``"ratios"`` and ``"labels"`` (those
                of your own) are others on purpose than when the state was taken.

        Raises:
            UsageError: the state is damaged, or of a stream with other items; what differs is said.
        """
        identity = self._identity()
        if self._draws_seed:
            identity["seed"] = seed_of(state, self.options.seed)
        place = read_state(state, identity, changed)
        self._end_iteration("load_state_dict")
        if identity["seed"] != self.options.seed:
            self.options = replace(self.options, seed=identity["seed"])
            self._maker = BatchMaker(self._sources, self.options)
        self._maker.mix_from(place.origin)
        earliest = place.origin.position
        self._epochs.resume(place.epoch, place.epoch_start, place.position, earliest)

    def stats(self) -> dict[str, Any]:
        """What this rank has received since the loader was made.

        ``samples`` and ``passes`` by source (passes: of the whole stream), ``samples_per_second``
        and ``waiting`` (share of time) while iterating, ``replaced`` samples, and where the
        first ten of them lie (``replaced_first``).
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
