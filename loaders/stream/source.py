"""One source of a stream: a dataset's shards, the rows that are used, and their order."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.loaders.remote.cache import Cache
from refit_shard.loaders.stream.options import DEFAULT_WINDOW, StreamOptions, check_ratios
from refit_shard.loaders.stream.order import Passes, Sequential
from refit_shard.loaders.stream.split import Split
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.names import MANIFEST
from refit_shard.shards_spec.reader import ShardSet, open_index, read_seal
from refit_shard.shards_spec.records import OpenTars, RecordReader
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.storage.paths import AnyPath, location

Ints = NDArray[np.int64]

logger = logging.getLogger(__name__)


def open_shards(name: str, url: str) -> ShardSet:
    """The finished shards of a dataset.

    Raises:
        UsageError: there are no finished shards.
        FormatError: the shards have another format version.
    """
    if MANIFEST not in open_folder(url).names():
        raise UsageError(
            f"{name}: no finished shards at {url}; build them with: refit-shard build "
            f"--dataset {name}, with the --config that declares it if it is your own"
        )
    return ShardSet.open(url)


def indexes(data_set: ShardSet) -> Iterator[pa.RecordBatch]:
    """The indexes of all shards, one after the other; only one is in memory at a time.

    Raises:
        ShardError: an index is missing or damaged.
    """
    manifest = data_set.manifest
    for entry in manifest.shards:
        index = open_index(data_set.folder, entry, manifest.fields)
        read_seal(index, f"{data_set.folder.url}/{entry.name}.arrow")
        yield index


class UsedRows(NamedTuple):
    """The samples that are used: their numbers in the shards, and their rows in the npz."""

    samples: Ints
    source_rows: Ints

    @property
    def content_hash(self) -> str:
        """SHA-256 of the source rows."""
        return hashlib.sha256(self.source_rows.astype("<i8").tobytes()).hexdigest()


def used_rows(name: str, data_set: ShardSet, where: Any, split: Split | None) -> UsedRows:
    """The samples for which ``where`` is true and that are on the side of ``split``.

    ``where``: a pyarrow expression over the index's columns, or None. ``split``: None for all
    samples. ``name``: the source's name in the log, which says how many samples are used.

    Raises:
        UsageError: the expression does not fit the columns.
    """
    found, frames = [np.zeros((2, 0), np.int64)], []
    first = 0
    for index in indexes(data_set):
        found.append(_matching(index, first, where))
        first += index.num_rows
        if split is not None:
            frames.append(index.column("imgname").dictionary_encode())
    samples, source_rows = np.concatenate(found, axis=1)
    if where is not None:
        logger.info("%s: where keeps %d of %d rows", name, len(samples), first)
    if split is not None and first:
        side = split.keep(data_set.manifest.dataset, frames)
        on_it = side.rows[samples]
        samples, source_rows = samples[on_it], source_rows[on_it]
        logger.info(
            "%s: split %r keeps %d of %d sequences (by %s), %d of %d rows",
            *(name, tuple(split), side.sequences, side.of, side.by, len(samples), len(on_it)),
        )
    return UsedRows(samples, source_rows)


def _matching(index: pa.RecordBatch, first: int, where: Any) -> Ints:
    """Numbers, counted from ``first``, and source rows (2, n) of rows where ``where`` is true."""
    numbers = np.arange(first, first + index.num_rows)
    if where is None:
        return np.stack([numbers, index.column("source_row").to_numpy().astype(np.int64)])
    import pyarrow.dataset as ds  # noqa: PLC0415 - imports pandas if it is installed: 20 MB

    table = pa.Table.from_batches([index]).append_column("sample", pa.array(numbers))
    try:
        scanner = ds.dataset(table).scanner(columns=["sample", "source_row"], filter=where)
        kept = scanner.to_table()
    except (pa.ArrowException, TypeError, KeyError) as error:
        raise UsageError(f"where: {where}: {error}") from error
    return np.stack([kept[name].to_numpy().astype(np.int64) for name in kept.column_names])


def in_source_order(data_set: ShardSet, kept: Ints | None) -> Ints:
    """The numbers of the samples, or of the ``kept`` ones, in the order of the npz."""
    rows = [index.column("source_row").to_numpy() for index in indexes(data_set)]
    every = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    chosen = np.arange(len(every)) if kept is None else kept
    return chosen[np.argsort(every[chosen], kind="stable")]


def _under(where: Any, split: Split | None) -> str:
    """The end of an error message: which filters left no rows, and what to do."""
    if split is None:
        return "" if where is None else " under where"
    said = f" under split {tuple(split)!r}" + ("" if where is None else " and where")
    return f"{said}; another share, or another seed as the third entry, divides it otherwise"


class Source:
    """A dataset of a stream; maps draws to samples in the order of :class:`Passes`.

    ``where``: a pyarrow expression, or None for all rows. ``split``: the side whose rows are used,
    or None. ``window``: see :class:`Passes`; becomes None if it covers all shards. ``sequential``:
    True for the order of the npz, without shuffling. ``cache``: used for shards at a URL.

    Attribute ``shards``: the dataset at its URL or path. ``read_from``: the dataset from which
    samples are read; with a cache and a URL, the cache's copies.

    Raises:
        UsageError: there are no shards, or no rows are left by ``where`` and ``split``.
    """

    def __init__(
        self,
        name: str,
        url: str,
        ratio: float,
        *,
        tars: OpenTars,
        seed: int,
        where: Any,
        split: Split | None,
        window: int | None,
        sequential: bool,
        cache: Cache | None,
    ) -> None:
        self.name = name
        self.ratio = ratio
        self.shards = open_shards(name, url)
        self.far = self.shards.folder.local is None
        self.read_from = self.shards
        if self.far and cache is not None:
            manifest = self.shards.manifest
            self.read_from = ShardSet(cache.folder(manifest), manifest)
            window = window or DEFAULT_WINDOW
        self.records = RecordReader(self.read_from, tars)
        self.rows = len(self.shards)
        self._kept: Ints | None = None
        self._filter: str | None = None
        if where is not None or split is not None:
            kept = used_rows(name, self.shards, where, split)
            if len(kept.samples) < self.rows:
                self.rows, self._kept = len(kept.samples), kept.samples
                self._filter = kept.content_hash
        if self.rows == 0 and ratio > 0:
            raise UsageError(f"{name}: {url} holds no rows{_under(where, split)}")
        self._content = self.shards.manifest.content_hash
        self._images = self.shards.manifest.images_hash
        entries = self.shards.manifest.shards
        self._ends = np.cumsum([entry.rows for entry in entries], dtype=np.int64)
        self.window = None if window is None or window >= len(entries) else window
        self._passes: Passes | Sequential = Passes(self._shard_rows(), seed, name, self.window)
        if sequential:
            self._kept = in_source_order(self.shards, self._kept)
            self._passes = Sequential(self.rows)
            self.window = None

    def __str__(self) -> str:
        every = len(self.shards)
        rows = f"{self.rows} rows" if self.rows == every else f"{self.rows} of {every} rows"
        return f"{self.name}: {rows}, {self.shards.folder.url}"

    def _shard_rows(self) -> list[int]:
        """Number of used rows of each shard."""
        used = self._ends if self._kept is None else np.searchsorted(self._kept, self._ends)
        rows: list[int] = np.diff(used, prepend=0).tolist()
        return rows

    def shards_of(self, draws: Ints) -> Ints:
        """The shards that hold the samples of the given draws."""
        return np.searchsorted(self._ends, self.rows_of(draws), side="right")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides which sample a draw is, and the ratio, as JSON values.

        A filter is represented by a hash of the rows that it keeps, not by its text, and by None if
        it keeps all rows.
        """
        return {
            "name": self.name,
            "ratio": float(self.ratio),
            "content": self._content,
            "images": self._images,
            "rows": self.rows,
            "filter": self._filter,
            "window": self.window,
        }

    def rows_of(self, draws: Ints) -> Ints:
        """The numbers of the samples of the given draws, for :attr:`records`."""
        rows = self._passes.locate(draws)
        return rows if self._kept is None else self._kept[rows]


def as_sources(given: Mapping[str, tuple[AnyPath, float]]) -> dict[str, tuple[AnyPath, float]]:
    """The sources of a stream, each a pair of its shards and its ratio.

    Raises:
        UsageError: they are something else.
    """
    example = '{"bedlam": ("data/shards/bedlam", 0.9), …}'
    if not isinstance(given, Mapping):
        raise UsageError(f"sources: must be {example}, got {given!r:.80}")
    for name, pair in given.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise UsageError(
                f"sources: {name}: must be a pair of shards and ratio, as in {example}, "
                f"got {pair!r:.80}"
            )
    return dict(given)


def open_sources(
    sources: Mapping[str, tuple[AnyPath, float]],
    options: StreamOptions,
    *,
    sequential: bool,
    cache: Cache | None,
) -> list[Source]:
    """Open the sources and check their ratios, filters and stored crops against the options.

    Raises:
        UsageError: a source, ratio or filter is wrong, or crops are too small for the policy.
    """
    ratios = check_ratios(list(sources), [ratio for _, ratio in sources.values()])
    where = options.where or {}
    unknown = [name for name in where if name not in sources]
    if unknown:
        raise UsageError(f"where: {unknown[0]!r} is not a source; sources: {', '.join(sources)}")
    split = None if options.split is None else Split(*options.split)
    tars = OpenTars(evicted=cache is not None)
    opened = [
        Source(
            name,
            location(url, f"shards of {name}"),
            ratio,
            tars=tars,
            seed=options.seed,
            where=where.get(name),
            split=split,
            window=options.window,
            sequential=sequential,
            cache=cache,
        )
        for (name, (url, _)), ratio in zip(sources.items(), ratios, strict=True)
    ]
    if options.augment:
        for source in opened:
            options.policy.check_set(source.shards.manifest, options.res, source.name)
    return opened
