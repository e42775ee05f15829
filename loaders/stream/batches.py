"""Makes a batch from its positions: the work of the worker threads."""

import logging
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.loaders.items.body import shown_boxes
from refit_shard.loaders.items.draws import Draws, neutral, select
from refit_shard.loaders.items.making import GATHERED, image_array, make_labels, tensor_dtype
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.own import common_labels, move_labels, presence
from refit_shard.loaders.items.pixels import SHOWN, image_kind, make_images
from refit_shard.loaders.items.policy import draw
from refit_shard.loaders.native import Read, Reader, failure
from refit_shard.loaders.remote.cache import Cache
from refit_shard.loaders.stream.ahead import ShardPrefetcher
from refit_shard.loaders.stream.mix import Mixer, Origin, make_mixer
from refit_shard.loaders.stream.needs import Needs
from refit_shard.loaders.stream.options import DEFAULT_OCCLUDERS, StreamOptions, parse_bytes
from refit_shard.loaders.stream.ranks import find_rank
from refit_shard.loaders.stream.source import open_sources
from refit_shard.loaders.stream.workers import Batch, Made, Slice, batches_in_order
from refit_shard.shards_spec.errors import RefitShardError, ShardError, StorageError, UsageError
from refit_shard.shards_spec.fields import EXTRINSICS
from refit_shard.shards_spec.records import Places
from refit_shard.shards_spec.storage.paths import AnyPath

Ints = NDArray[np.int64]

logger = logging.getLogger(__name__)

_REPLACEMENTS = 100


def open_occluders(options: StreamOptions) -> Occluders | None:
    """The cut-outs for the options, or None if nothing is to be occluded.

    Raises:
        UsageError: the file is wrong, or required and missing.
    """
    if not options.augment or options.policy.occlude == 0:
        return None
    if options.occluders is not None and options.occluders != "required":
        return Occluders(options.occluders)
    try:
        return Occluders(DEFAULT_OCCLUDERS)
    except UsageError:
        if options.occluders == "required":
            raise
    logger.warning(
        "occlusion is off: no occluders at %s; make them with refit-shard import-occluders, "
        "or pass occluders=FILE",
        DEFAULT_OCCLUDERS,
    )
    return None


@dataclass(frozen=True)
class Samples:
    """The samples read for a batch that begins at position ``begin`` of the stream.

    ``which``, ``numbers`` (n,): source and draw of each place in the batch. ``labels`` (n,): the
    labels of each place. ``got``: the JPEGs of the latest read; ``at`` and ``rows``: for each of
    these JPEGs its place in the batch and the sample's number. ``bad``: the errors of samples that
    could not be read, by place.
    """

    begin: int
    which: Ints
    numbers: Ints
    labels: NDArray[np.void]
    got: Read
    at: Ints
    rows: Ints
    bad: dict[int, ShardError]


class BatchMaker:
    """Makes the batches of a stream, in two steps: :meth:`read` and :meth:`make`.

    May be used by many threads at once. ``sequential``: True if position n is to be row n of the
    npz, for evaluation.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[AnyPath, float]],
        options: StreamOptions,
        *,
        sequential: bool = False,
    ) -> None:
        self.options = options
        self._cache: Cache | None = None
        if options.cache is not None:
            self._cache = Cache(options.cache, parse_bytes("cache_bytes", options.cache_bytes))
        self.sources = open_sources(sources, options, sequential=sequential, cache=self._cache)
        self.occluders = open_occluders(options)
        self.own = common_labels({one.name: one.shards.own for one in self.sources})
        names = ["imgname", *GATHERED, *(field.name for field in self.own)]
        if all(source.shards.manifest.extrinsics for source in self.sources):
            names += EXTRINSICS
        self._reader = Reader([source.records.layout for source in self.sources], names)
        self._far = [index for index, source in enumerate(self.sources) if source.far]
        self.mix_from(None)
        if self._far:
            self._check_cache()

    def mix_from(self, origin: Origin | None) -> None:
        """Apply the ratios from ``origin`` on; None for the beginning of the stream."""
        options = self.options
        ratios = [source.ratio for source in self.sources]
        self.mixer: Mixer = make_mixer(options.mixing, ratios, options.seed, origin)
        spare = _REPLACEMENTS + 1 if options.on_error == "replace" else 0
        self._needs = Needs(self.sources, self.mixer, self._far, spare)

    def _check_cache(self) -> None:
        """Raise UsageError if the cache is too small for the shards that are in use at a time."""
        options = self.options
        if self._cache is None:
            return
        positions = options.batch_size * find_rank(options).world_size * options.batches_in_flight
        needed = self._needs.working_bytes(positions)
        if needed > self._cache.limit:
            raise UsageError(
                f"cache_bytes: {self._cache.limit} is too small: {needed} bytes of shards are in "
                "use at a time; raise it, or lower window, num_workers or prefetch"
            )

    def batches(self, slices: Iterable[Slice]) -> Generator[tuple[Batch, Made], None, None]:
        """The batch of each slice, in order; see :func:`batches_in_order`.

        Raises:
            RefitShardError: a batch cannot be made, or a shard cannot be downloaded.
        """
        with ExitStack() as stack:
            ahead: ShardPrefetcher | None = None
            if self._cache is not None and len(self._needs.sizes):
                ahead = stack.enter_context(closing(ShardPrefetcher(self._needs, self._cache)))
                slices = ahead.once_held(slices)
            made = batches_in_order(
                self,
                slices,
                batch_size=self.options.batch_size,
                workers=self.options.num_workers,
                prefetch=self.options.prefetch,
            )
            for finished in stack.enter_context(closing(made)):
                if ahead is not None:
                    ahead.received()
                yield finished
                del finished  # or it would stay in memory while waiting for the next one
            if ahead is not None:
                ahead.check()

    @property
    def largest(self) -> int:
        """Number of rows of the largest source."""
        return max(source.rows for source in self.sources)

    @property
    def image(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of an image."""
        kind = image_kind(self.options)
        return kind.shape(self.options.res), tensor_dtype(kind)

    def read(self, begin: int, end: int) -> Samples:
        """Read the samples of positions begin … end - 1; damaged ones become ``bad``."""
        which, numbers = self.mixer.assign(begin, end - begin)
        labels = np.zeros(end - begin, self._reader.dtype)
        return self._read(begin, which, numbers, labels, np.arange(end - begin))

    def make(self, samples: Samples, images: torch.Tensor) -> Made:
        """Make a batch from what was read; the images are drawn into ``images``.

        Depending on ``on_error``, a damaged sample raises or is replaced by the next good draw of
        its source.
        """
        which, pixels = samples.which, image_array(images)
        draws = self._draws(samples.begin, len(which))
        replaced: dict[int, str] = {}
        tries = 0
        while bad := samples.bad | self._draw(samples, draws, pixels):
            place = min(bad)
            if self.options.on_error == "raise":
                raise bad[place]
            tries += 1
            if tries > _REPLACEMENTS:
                raise ShardError(
                    f"{self.sources[which[place]].name}: {_REPLACEMENTS} samples in a row are "
                    "damaged; run refit-shard verify"
                )
            replaced = {place: str(error) for place, error in bad.items()} | replaced
            again = np.array(sorted(bad), np.int64)
            samples = self._read(
                samples.begin, which, samples.numbers, samples.labels, again, tries
            )
        columns = {name: samples.labels[name] for name in self._reader.dtype.names or ()}
        columns |= shown_boxes(columns, draws)
        made = self._labels(columns, draws)
        made["dataset_name"] = [self.sources[one].name for one in which.tolist()]
        has = presence(self.own, [source.shards.own for source in self.sources], which)
        made |= move_labels(self.options, self.own, columns, has, draws)
        counts = np.bincount(which, minlength=len(self.sources))
        return Made(made, counts, tuple(replaced[place] for place in sorted(replaced)))

    def finish(self, samples: Samples, batch: Batch) -> Batch:
        """The batch after the user's transform, if there is one."""
        transform = self.options.transform
        if transform is None:
            return batch
        return transform.apply(batch, self.options.seed, samples.begin, len(samples.which))

    def _labels(self, columns: dict[str, NDArray[Any]], draws: Draws) -> dict[str, Any]:
        names: list[bytes] = columns.pop("imgname").tolist()
        made: dict[str, Any] = make_labels(self.options, columns, draws)
        made["imgname"] = [name.decode(errors="replace") for name in names]
        return made

    def _draws(self, begin: int, count: int) -> Draws:
        if not self.options.augment:
            return neutral(count)
        objects = 0 if self.occluders is None else len(self.occluders)
        return draw(
            self.options.policy,
            self.options.seed,
            begin,
            count,
            objects=objects,
            res=self.options.res,
        )

    def _read(
        self,
        begin: int,
        which: Ints,
        numbers: Ints,
        labels: NDArray[np.void],
        at: Ints,
        tries: int = 0,
    ) -> Samples:
        """Read samples for places ``at`` of a batch, each ``tries`` draws after the place's own."""
        rows = self._rows(which[at], numbers[at] + tries)
        places, wrong = self._places(which[at], rows)
        at_read, rows_read = at[places.asked], rows[places.asked]

        def where(number: int) -> str:
            source = self.sources[int(which[at_read[number]])]
            return source.records.where(int(rows_read[number]))

        got = self._reader.read(which[at_read], places, where, labels, at_read)
        errors: list[tuple[int, int, RefitShardError]]
        errors = [(int(at[number]), int(rows[number]), error) for number, error in wrong.items()]
        for number in np.flatnonzero(got.codes).tolist():
            error = failure(int(got.codes[number]), int(got.details[number]), where(number))
            if isinstance(error, StorageError):
                raise error
            errors.append((int(at_read[number]), int(rows_read[number]), error))
        bad = {place: self._blame(which[place], row, error) for place, row, error in errors}
        return Samples(begin, which, numbers, labels, got, at_read, rows_read, bad)

    def _rows(self, which: Ints, numbers: Ints) -> Ints:
        """The number, within its source, of the sample of each draw."""
        rows = np.empty_like(numbers)
        for index, source in enumerate(self.sources):
            mine = which == index
            if mine.any():
                rows[mine] = source.rows_of(numbers[mine])
        return rows

    def _places(self, which: Ints, rows: Ints) -> tuple[Places, dict[int, ShardError]]:
        """Places of samples in the tars, and the errors of samples without a place, by index."""
        parts: list[Places] = []
        wrong: dict[int, ShardError] = {}
        for index, source in enumerate(self.sources):
            mine = np.flatnonzero(which == index)
            if len(mine):
                found, lost = source.records.places(rows[mine])
                parts.append(replace(found, asked=mine[found.asked]))
                wrong |= {int(mine[number]): error for number, error in lost.items()}
        return Places.joined(parts), wrong

    def _blame(self, index: int, row: int, error: RefitShardError) -> ShardError:
        """The error of a sample with its dataset, shard and key prepended."""
        source = self.sources[index]
        blamed = ShardError(f"{source.name}: {source.records.describe(row)}: {error}")
        blamed.__cause__ = error.with_traceback(None)  # a traceback would keep tars open
        return blamed

    def _draw(self, samples: Samples, draws: Draws, pixels: NDArray[Any]) -> dict[int, ShardError]:
        """Draw the images of what was read; returns the errors of damaged ones, by place."""
        good = np.flatnonzero(samples.got.codes == 0)
        at, rows = samples.at[good], samples.rows[good]
        shown = {name: samples.labels[name] for name in SHOWN}
        shown |= shown_boxes(samples.labels, draws)
        failed = make_images(
            self.options,
            samples.got.jpegs.select(good),
            {name: values[at] for name, values in shown.items()},
            select(draws, at),
            self.occluders,
            pixels,
            at,
        )
        return {
            int(at[number]): self._blame(samples.which[at[number]], int(rows[number]), error)
            for number, error in failed.items()
        }

    def passes(self, position: int) -> dict[str, float]:
        """Number of passes over each source at a position of the stream."""
        counts = self.mixer.counts(position).tolist()
        return {
            source.name: count / max(1, source.rows)
            for source, count in zip(self.sources, counts, strict=True)
        }
