"""The stream: positions become batches, in worker processes, in order, resumable anywhere.

Everything that a batch holds is a function of (seed, position). So the number of workers, ranks
or prefetched batches changes nothing, and a state is a position and what must agree with it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields
from typing import Any

import numpy as np

from loaders.batches import BatchMaker
from loaders.options import StreamOptions, rank_and_world_size, read_config
from loaders.replaced import Replaced
from loaders.workers import Batch, Made
from shards_spec.errors import UsageError
from shards_spec.paths import AnyPath

STATE_VERSION = 2
_MEANING = {
    "sources": " (name, ratio, plan of its shards, rows, filter)",
    "windows": " (shards of each source that are mixed at a time, None for all; pass window=)",
}
_FARTHEST = 2**53  # whole numbers up to here are exact as float64, which the mixer counts in


def _equal(stated: Any, value: Any) -> bool:
    """Whether a value of a saved state is this loader's; one that cannot be compared is not."""
    try:
        return bool(stated == value)
    except (ValueError, RuntimeError):  # an array or a tensor
        return False


class StreamingLoader:
    """Batches from several data sets in fixed ratios; see :class:`loaders.StreamOptions`.

    ``sources``: name to (path or URL of its shards, ratio). Iterating gives one epoch; the next
    iteration gives the next one, also after leaving one early. A batch is a dict as PyTorch's
    default collate makes of ReFit's items.

    Raises:
        UsageError: options, ratios or sources are wrong.
        FormatError: shards of another version.
    """

    def __init__(
        self, sources: Mapping[str, tuple[AnyPath, float]], options: StreamOptions | None = None
    ) -> None:
        self.options = options or StreamOptions()
        self._rank, self._world_size = rank_and_world_size(self.options)
        self._maker = BatchMaker(sources, self.options)
        self._samples = self.options.epoch_samples or self._maker.largest
        self._check_epoch()
        self._epoch = 0
        self._epoch_start = 0
        self._epoch_end = self._end_of(0, 0)
        self._position = 0
        self._resumed = False
        self._received = np.zeros(len(sources), np.int64)
        self._replaced = Replaced()
        self._seconds = 0.0
        self._waited = 0.0
        self._clock = 0.0

    @classmethod
    def from_config(
        cls, config: AnyPath, *, shards: AnyPath = "data/shards", **options: Any
    ) -> "StreamingLoader":
        """A loader from ReFit's YAML; ``options`` are :class:`StreamOptions` and go before it.

        ``shards`` is the folder or URL that holds a folder of each data set.

        Raises:
            UsageError: the file or an option is wrong, or shards are missing.
        """
        read = read_config(config)
        known = {field.name for field in fields(StreamOptions)}
        unknown = sorted(options.keys() - known)
        if unknown:
            raise UsageError(f"unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return cls(read.places(shards), StreamOptions(**(read.stated | options)))

    @property
    def global_batch(self) -> int:
        """Samples of all ranks in a step."""
        return self.options.batch_size * self._world_size

    def _check_epoch(self) -> None:
        left = self._samples % self.global_batch
        if self.options.drop_last and self._samples < self.global_batch:
            raise UsageError(
                f"an epoch of {self._samples} samples is smaller than one batch of "
                f"{self.global_batch} (all ranks); lower batch_size, raise epoch_samples, "
                "or pass drop_last=False"
            )
        if not self.options.drop_last and 0 < left < self._world_size:
            raise UsageError(
                f"an epoch of {self._samples} samples leaves {left} for the last batch of "
                f"{self._world_size} ranks: some would have none; pass drop_last=True or another "
                "epoch_samples"
            )

    def _end_of(self, epoch_start: int, position: int) -> int:
        """Where the epoch ends that began at ``epoch_start``, going on from ``position``."""
        left = epoch_start + self._samples - position
        if self.options.drop_last:
            left -= left % self.global_batch
        return position + max(0, left)

    def __len__(self) -> int:
        """Batches in an epoch; the same on every rank."""
        whole, rest = divmod(self._samples, self.global_batch)
        return whole + (1 if rest and not self.options.drop_last else 0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. Nobody has to call this: epochs go on by themselves.

        Raises:
            UsageError: not a whole number of at least 0.
        """
        if not isinstance(epoch, int) or epoch < 0:
            raise UsageError(f"set_epoch: must be a whole number of at least 0, got {epoch!r}")
        if epoch == self._epoch and self._resumed:
            return
        self._epoch = epoch
        self._epoch_start = epoch * self._end_of(0, 0)
        self._position = self._epoch_start
        self._resumed = False

    def __iter__(self) -> Iterator[Batch]:
        if self._position > self._epoch_start and not self._resumed:
            self._epoch += 1
            self._epoch_start = self._position = self._epoch_end
        self._resumed = False
        self._epoch_end = self._end_of(self._epoch_start, self._position)
        return self._batches(self._position, self._epoch_end)

    def _slices(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Each step's (begin, end) for this rank."""
        while first < end:
            count = min(self.global_batch, end - first)
            yield (
                first + count * self._rank // self._world_size,
                first + count * (self._rank + 1) // self._world_size,
            )
            first += count

    def _batches(self, first: int, end: int) -> Iterator[Batch]:
        batches = self._maker.batches(self._slices(first, end))
        replaced, received = self._replaced.count, int(self._received.sum())
        self._clock = time.perf_counter()
        with closing(batches):
            asked = time.perf_counter()
            for batch, made in batches:
                first = min(first + self.global_batch, end)
                self._receive(asked, first, made)
                yield batch
                del batch  # or its memory would be held while the next one is waited for
                asked = time.perf_counter()
        self._replaced.end_epoch(replaced, int(self._received.sum()) - received)

    def _receive(self, asked: float, following: int, made: Made) -> None:
        """Count a batch as received, just before it is handed over."""
        self._received += made.counts
        self._replaced.receive(made.replaced)
        self._position = following
        now = time.perf_counter()
        self._waited += now - asked
        self._seconds += now - self._clock
        self._clock = now

    def state_dict(self) -> dict[str, Any]:
        """Where the training loop is: what it has received, not what was made ahead."""
        return {
            "version": STATE_VERSION,
            "seed": self.options.seed,
            "mixing": self.options.mixing,
            "epoch": self._epoch,
            "epoch_start": self._epoch_start,
            "position": self._position,
            "draws": self._maker.mixer.counts(self._position).tolist(),
            "sources": self._maker.identity,
            "windows": self._maker.windows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last batch that was received when the state was taken.

        The number of ranks and of workers may be another.

        Raises:
            UsageError: the state is of another seed, mixing or window, or other sources.
        """
        self._check_state(state)
        self._epoch = int(state["epoch"])
        self._epoch_start = int(state["epoch_start"])
        self._position = int(state["position"])
        self._maker.mixer.resume(self._position, np.asarray(state["draws"], np.int64))
        self._epoch_end = self._end_of(self._epoch_start, self._position)
        self._resumed = self._epoch_end > self._position

    def _check_state(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or not _equal(state.get("version"), STATE_VERSION):
            raise UsageError("load_state_dict: not a state of this loader's version")
        wanted = {
            "seed": self.options.seed,
            "mixing": self.options.mixing,
            "sources": self._maker.identity,
            "windows": self._maker.windows,
        }
        for key, value in wanted.items():
            if not _equal(state.get(key), value):
                raise UsageError(
                    f"load_state_dict: the state's {key} is {state.get(key)!r}, this loader's is "
                    f"{value!r}{_MEANING.get(key, '')}"
                )
        numbers = [state.get("epoch"), state.get("epoch_start"), state.get("position")]
        draws: Any = state.get("draws")
        if (
            not isinstance(draws, list)
            or not all(isinstance(one, int) and 0 <= one < _FARTHEST for one in (*numbers, *draws))
            or len(draws) != len(self._maker.sources)
            or sum(draws) != state["position"]
            or state["position"] < state["epoch_start"]
        ):
            raise UsageError("load_state_dict: the state is damaged")

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
            "passes": self._maker.passes(self._position),
            "replaced": self._replaced.count,
            "replaced_first": list(self._replaced.first),
            "samples_per_second": int(self._received.sum()) / seconds,
            "waiting": self._waited / seconds,
        }
