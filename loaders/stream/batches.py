"""Making one batch from its positions: the work of a worker, of several at once."""

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.making import GATHERED, make_labels
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.own import common_labels, empty_labels, move_labels, presence
from refit_shard.loaders.items.pixels import image_kind, make_images
from refit_shard.loaders.items.policy import Draws, draw, neutral, select
from refit_shard.loaders.native import Read, failure, read
from refit_shard.loaders.remote.cache import Cache
from refit_shard.loaders.stream.ahead import Ahead
from refit_shard.loaders.stream.mix import Mixer, Origin, make_mixer
from refit_shard.loaders.stream.needs import Needs
from refit_shard.loaders.stream.options import (
    DEFAULT_OCCLUDERS,
    StreamOptions,
    check_ratios,
    parse_bytes,
)
from refit_shard.loaders.stream.ranks import find_rank
from refit_shard.loaders.stream.source import Source
from refit_shard.loaders.stream.workers import Batch, Made, Slice, batches_in_order
from refit_shard.shards_spec.errors import RefitShardError, ShardError, StorageError, UsageError
from refit_shard.shards_spec.fields import EXTRINSICS, FIELD
from refit_shard.shards_spec.records import OpenTars, Place
from refit_shard.shards_spec.storage.paths import AnyPath, location

Ints = NDArray[np.int64]

logger = logging.getLogger(__name__)

_REPLACEMENTS = 100


def open_occluders(options: StreamOptions) -> Occluders | None:
    """The cut-outs that the options ask for, or None without occlusion.

    Raises:
        UsageError: they are required and not there.
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


def open_sources(
    sources: Mapping[str, tuple[AnyPath, float]],
    options: StreamOptions,
    *,
    sequential: bool,
    cache: Cache | None,
) -> list[Source]:
    """The sources, checked against the ratios, the filters and the policy.

    Raises:
        UsageError: they do not fit.
    """
    ratios = check_ratios(list(sources), [ratio for _, ratio in sources.values()])
    unknown = [name for name in options.where if name not in sources]
    if unknown:
        raise UsageError(f"where: {unknown[0]!r} is not a source; sources: {', '.join(sources)}")
    tars = OpenTars()
    opened = [
        Source(
            name,
            location(url, f"shards of {name}"),
            ratio,
            tars=tars,
            seed=options.seed,
            where=options.where.get(name),
            window=options.window,
            sequential=sequential,
            cache=cache,
        )
        for (name, (url, _)), ratio in zip(sources.items(), ratios, strict=True)
    ]
    if options.augment:
        for source in opened:
            options.policy.check_envelope(source.shards.manifest.envelope, source.name)
    return opened


class BatchMaker:
    """``make(begin, end, pixels)`` gives the batch of these positions.

    ``sequential``: position n is row n of the npz, for evaluation.
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
        self.extrinsics = all(source.shards.manifest.extrinsics for source in self.sources)
        self.own = common_labels({one.name: one.shards.own for one in self.sources})
        self._far = [index for index, source in enumerate(self.sources) if source.far]
        self.mix_from(None)
        if self._far:
            self._check_cache()

    def mix_from(self, origin: Origin | None) -> None:
        """Mix the sources by their ratios from ``origin`` on; None for the stream's beginning."""
        options = self.options
        ratios = [source.ratio for source in self.sources]
        self.mixer: Mixer = make_mixer(options.mixing, ratios, options.seed, origin)
        spare = _REPLACEMENTS + 1 if options.on_error == "replace" else 0
        self._needs = Needs(self.sources, self.mixer, self._far, spare)

    def _check_cache(self) -> None:
        """Refuse a cache that cannot hold the shards that are in use at a time."""
        options = self.options
        if self._cache is None:
            return
        positions = options.batch_size * find_rank(options).world_size * options.batches_in_flight
        needed = self._needs.working_bytes(positions)
        if needed > self._cache.limit:
            raise UsageError(
                f"cache_bytes: {self._cache.limit} is too little: {needed} bytes of shards are in "
                "use at a time; give as much, or lower window, num_workers or prefetch"
            )

    def batches(self, slices: Iterable[Slice]) -> Generator[tuple[Batch, Made], None, None]:
        """Each slice's batch, in order; see :func:`batches_in_order`.

        Raises:
            RefitShardError: a batch cannot be made, or a shard cannot be brought near.
        """
        with ExitStack() as stack:
            ahead: Ahead | None = None
            if self._cache is not None and len(self._needs.sizes):
                ahead = stack.enter_context(closing(Ahead(self._needs, self._cache)))
                slices = ahead.near(slices)
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
                del finished  # or its memory would be held while the next one is waited for
            if ahead is not None:
                ahead.check()

    @property
    def largest(self) -> int:
        """Rows of the largest source."""
        return max(source.rows for source in self.sources)

    @property
    def image(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an image."""
        kind = image_kind(self.options)
        return kind.shape(self.options.res), kind.dtype

    def make(self, begin: int, end: int, pixels: NDArray[Any]) -> Made:
        """Make the samples of positions begin … end - 1, their images in ``pixels``."""
        which, numbers = self.mixer.assign(begin, end - begin)
        draws = self._draws(begin, end - begin)
        columns, replaced = self._fill(pixels, which, numbers, draws)
        names = columns.pop("imgname").tolist()
        made: dict[str, Any] = make_labels(self.options, columns, draws)
        made["imgname"] = [name.decode(errors="replace") for name in names]
        made["dataset_name"] = [self.sources[one].name for one in which.tolist()]
        has = presence(self.own, [source.shards.own for source in self.sources], which)
        made |= move_labels(self.options, self.own, columns, has, draws)
        return Made(made, np.bincount(which, minlength=len(self.sources)), replaced)

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

    def _fill(
        self, pixels: NDArray[Any], which: Ints, numbers: Ints, draws: Draws
    ) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
        """Fill in the images; gives the columns of their samples, and a line for each replaced.

        A bad sample raises, or its place is filled by the next draw of its source that is good.
        """
        count = len(which)
        columns = self._empty_columns(count)
        waiting, tries = np.arange(count), 0
        replaced: dict[int, str] = {}
        while len(waiting):
            if tries > _REPLACEMENTS:
                name = self.sources[which[waiting[0]]].name
                raise ShardError(
                    f"{name}: {_REPLACEMENTS} samples in a row are damaged; run refit-shard verify"
                )
            bad: list[int] = []
            rows = self._rows(which[waiting], numbers[waiting] + tries)

            def on_bad(place: int, row: int, error: RefitShardError, bad: list[int] = bad) -> None:
                source = self.sources[which[place]]
                where = f"{source.name}: {source.records.describe(row)}"
                if self.options.on_error == "raise":
                    raise ShardError(f"{where}: {error}") from error
                replaced.setdefault(place, f"{where}: {error}")
                bad.append(place)

            self._fill_places(waiting.tolist(), rows, which, columns, pixels, draws, on_bad)
            waiting, tries = np.array(bad, np.int64), tries + 1
        return columns, tuple(replaced.values())

    def _rows(self, which: Ints, numbers: Ints) -> list[int]:
        """The sample of each draw, in its source."""
        rows = np.empty_like(numbers)
        for index, source in enumerate(self.sources):
            mine = which == index
            if mine.any():
                rows[mine] = source.rows_of(numbers[mine])
        found: list[int] = rows.tolist()
        return found

    def _empty_columns(self, count: int) -> dict[str, NDArray[Any]]:
        names = (*GATHERED, *EXTRINSICS) if self.extrinsics else GATHERED
        columns = {name: np.empty((count, *FIELD[name].shape), FIELD[name].dtype) for name in names}
        columns["imgname"] = np.empty(count, object)
        return columns | empty_labels(self.own, count)

    def _fill_places(
        self,
        places: list[int],
        rows: list[int],
        which: Ints,
        columns: dict[str, NDArray[Any]],
        pixels: NDArray[Any],
        draws: Draws,
        on_bad: Callable[[int, int, RefitShardError], None],
    ) -> None:
        """Read and make the samples of some places of a batch; ``on_bad`` hears of the others."""
        there: list[int] = []
        found: list[Place] = []
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            try:
                found.append(self.sources[which[place]].records.place(row))
            except ShardError as error:
                on_bad(place, row, error)
            else:
                there.append(number)
        at = np.array([places[number] for number in there], np.int64)
        got = read([source.records.layout for source in self.sources], which[at], found)
        for number in np.flatnonzero(got.codes).tolist():
            bad = failure(int(got.codes[number]), int(got.details[number]), found[number].where)
            if isinstance(bad, StorageError):
                raise bad
            on_bad(int(at[number]), rows[there[number]], bad)
        good = np.flatnonzero(got.codes == 0)
        if not len(good):
            return
        self._scatter(got, which, at, columns)
        chosen = at[good]
        failed = make_images(
            self.options,
            got.jpegs.select(good),
            {name: columns[name][chosen] for name in GATHERED},
            select(draws, chosen.tolist()),
            self.occluders,
            pixels,
            chosen,
        )
        for number, bad in failed.items():
            on_bad(int(chosen[number]), rows[there[good[number]]], bad)

    def _scatter(
        self, got: Read, which: Ints, places: Ints, columns: Mapping[str, NDArray[Any]]
    ) -> None:
        """Put the records' fields where they belong in the columns, source by source."""
        for index, records in enumerate(got.records):
            mine = places[which[places] == index]
            if len(mine):
                for name in columns.keys() & {*(records.dtype.names or ())}:
                    columns[name][mine] = records[name]

    def passes(self, position: int) -> dict[str, float]:
        """Passes of each source at a position of the stream."""
        counts = self.mixer.counts(position).tolist()
        return {
            source.name: count / max(1, source.rows)
            for source, count in zip(self.sources, counts, strict=True)
        }
