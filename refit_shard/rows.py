"""Rows of the shards of one or more datasets as one table, filtered by a condition in text.

Rows are read a few shards at a time, so memory does not grow with their number.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.shards_spec.fields import arrow_schema
from refit_shard.shards_spec.joints import PLACE
from refit_shard.shards_spec.reader import ShardSet, find_data_sets, open_index
from refit_shard.shards_spec.storage.paths import AnyPath, absolute, location
from refit_shard.shards_spec.verify import read_quarantine
from refit_shard.shards_spec.writer import QUARANTINE_SCHEMA

if TYPE_CHECKING:
    from refit_shard.where import Where

SHARDS = "data/shards"
# Rows read at a time: eight shards of the default size.
PIECE = 1 << 14
PARTS = ("x", "y", "conf")
JOINT = pa.struct([(name, pa.float32()) for name in PARTS])


class Chosen(NamedTuple):
    """Chosen rows of one shard.

    Attributes:
        data_set: the dataset.
        shard: the shard's number in it.
        rows: (n,) int64, the rows' numbers in the shard, ascending.
    """

    data_set: ShardSet
    shard: int
    rows: NDArray[np.int64]


def find_sets(places: Iterable[AnyPath], *, shards: str = SHARDS) -> list[ShardSet]:
    """The finished datasets at some places, each once.

    Args:
        places: each is a dataset's folder or URL, a folder of datasets, or the name of a dataset in
            ``shards``.
        shards: the folder or URL that holds the datasets given by name.

    Raises:
        ShardError: a place holds no dataset, or one that is unfinished or damaged.
        FormatError: a dataset has another format version.
    """
    found: dict[str, ShardSet] = {}
    for place in places:
        for url in set_urls(place, shards=shards):
            if absolute(url) not in found:
                found[absolute(url)] = ShardSet.open(url)
    return list(found.values())


def set_urls(place: AnyPath, *, shards: str = SHARDS) -> list[str]:
    """The URLs of the datasets at one place, finished or not: a dataset's folder or URL, a folder
    of datasets, or the name of a dataset in ``shards``.

    Raises:
        ShardError: there is none.
    """
    place = location(place)
    if "/" in place or Path(place).exists():
        return find_data_sets(place)
    try:
        return find_data_sets(f"{shards}/{place}")
    except ShardError as error:
        raise ShardError(
            f"{place}: no such folder, and no dataset of that name: {error}"
        ) from error


def one_set_url(place: AnyPath, *, shards: str = SHARDS, instead: str = "") -> str:
    """The URL of the only dataset at one place, as in :func:`set_urls`.

    Args:
        place: a dataset's folder, URL or name.
        shards: the folder or URL that holds the datasets given by name.
        instead: the end of the error: what else may be given.

    Raises:
        UsageError: there are several.
        ShardError: there is none.
    """
    place = location(place)
    url, *more = set_urls(place, shards=shards)
    if more:
        raise UsageError(f"{place}: holds {1 + len(more)} datasets; give one of them{instead}")
    return url


def rows(
    sets: Sequence[ShardSet | AnyPath],
    where: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    quarantine: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> pa.RecordBatchReader:
    """The rows of some datasets that meet a condition, by dataset and shard in their order.

    Args:
        sets: open datasets, or places as in :func:`find_sets`.
        where: a condition in DuckDB's SQL, such as ``"scale > 0.5 and left_heel.conf > 0.5"``; None
            for all rows, which needs no DuckDB. Lists are counted from 1: ``betas[1]``.
        columns: names of :data:`~refit_shard.shards_spec.fields.FIELDS`, of own labels, of joints
            (``left_heel``: a struct of x, y, conf) and of parts of joints (``left_heel.conf``), or
            ``dataset`` and ``shard``; None for all but joints. A dataset that lacks a column has
            nulls in it.
        quarantine: True for the quarantined rows instead of the samples; their columns are dataset,
            source_row, imgname, reason and detail.
        on_rows: called with how many more rows were read.

    Returns:
        A reader of record batches, each with the rows of at most a few shards.

    Raises:
        UsageError: the condition is not valid, or names a column that does not exist, or
            ``columns`` does.
        ShardError: as in :func:`find_sets`; while reading, an index is missing or damaged.
    """
    source = _Source(_opened(sets), quarantine=quarantine)
    schema = source.schema(source.kinds if columns is None else columns, "columns")
    found = source.found(where, on_rows)

    def batches() -> Iterator[pa.RecordBatch]:
        for piece, places in found:
            if len(places):
                yield from piece.table(schema).take(places).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def selected(sets: Sequence[ShardSet | AnyPath], where: str | None = None) -> Iterator[Chosen]:
    """The rows that meet a condition, by shard; shards without such rows are left out.

    ``sets``, ``where`` and errors are those of :func:`rows`.
    """
    found = _Source(_opened(sets)).found(where)

    def chosen() -> Iterator[Chosen]:
        for piece, places in found:
            for number, (begin, end) in enumerate(piece.ends, piece.first):
                within = places[(places >= begin) & (places < end)]
                if len(within):
                    yield Chosen(piece.data_set, number, within - begin)

    return chosen()


def counts(
    sets: Sequence[ShardSet],
    where: str | None = None,
    *,
    quarantine: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> list[int]:
    """The number of rows of each dataset that meet a condition; see :func:`rows`."""
    found = dict.fromkeys(map(id, sets), 0)
    for piece, places in _Source(sets, quarantine=quarantine).found(where, on_rows):
        found[id(piece.data_set)] += len(places)
    return list(found.values())


def named(sets: Sequence[ShardSet], name: str) -> list[Chosen]:
    """The rows whose key or imgname is ``name``; if there are none, those whose imgname ends with
    ``/name``.

    Raises:
        ShardError: an index is missing or damaged.
    """
    if (
        name.encode(errors="replace").decode() != name
    ):  # no text of a set holds half a surrogate pair
        return []
    whole: list[Chosen] = []
    ending: list[Chosen] = []
    for piece in _Source(sets).pieces():
        for number, batch in enumerate(piece.batches, piece.first):
            frames = batch.column("imgname")
            same = pc.or_(pc.equal(batch.column("key"), name), pc.equal(frames, name))
            for found, mask in ((whole, same), (ending, pc.ends_with(frames, f"/{name}"))):
                if mask.true_count:
                    places = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
                    found.append(Chosen(piece.data_set, number, places))
    return whole or ending


def shapes(sets: Sequence[ShardSet]) -> dict[str, tuple[int, ...]]:
    """The shape of one row in each column by name; the reader of :func:`rows` flattens these."""
    return {field.name: field.shape for one in sets for field in one.manifest.fields}


def _opened(sets: Sequence[ShardSet | AnyPath]) -> list[ShardSet]:
    """Open datasets; those given as places are opened here."""
    if isinstance(sets, (str, bytes, Path, ShardSet)):
        raise UsageError(f"sets: must be a list of datasets, got {sets!r:.80}")
    opened: list[ShardSet] = []
    for one in sets:
        opened += [one] if isinstance(one, ShardSet) else find_sets([one])
    if not opened:
        raise UsageError("sets: must name at least one dataset")
    return opened


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rows of some consecutive shards of a dataset: one batch for each, from shard ``first`` on."""

    data_set: ShardSet
    first: int
    batches: Sequence[pa.RecordBatch]

    @property
    def ends(self) -> list[tuple[int, int]]:
        """The begin and end of each shard's rows in the piece."""
        ends = np.cumsum([0, *(batch.num_rows for batch in self.batches)]).tolist()
        return list(pairwise(ends))

    def table(self, schema: pa.Schema) -> pa.Table:
        """The columns of the schema, with the rows of the piece."""
        columns = [self._column(field.name, field.type) for field in schema]
        return pa.table(columns, schema=schema)

    def _column(self, name: str, kind: pa.DataType) -> pa.ChunkedArray:
        parts = [self._part(*numbered, name, kind) for numbered in enumerate(self.batches)]
        return pa.chunked_array(parts, kind)

    def _part(self, number: int, batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
        """A column of one shard."""
        if name in batch.schema.names:
            return batch.column(name)
        if name == "dataset":
            return pa.repeat(self.data_set.manifest.dataset, batch.num_rows)
        if name == "shard":
            entry = self.data_set.manifest.shards[self.first + number]
            return pa.repeat(entry.name, batch.num_rows)
        joint, _, part = name.partition(".")
        if kind == JOINT or part:
            points = _joint(batch.column("keypoints"), PLACE[joint])
            return points.field(part) if part else points
        return pa.nulls(batch.num_rows, kind)


def _joint(keypoints: pa.Array, place: int) -> pa.Array:
    """The joint at ``place`` of the 49 keypoints, as a struct of x, y and conf for each row."""
    points = keypoints.flatten().to_numpy().reshape(len(keypoints), -1, len(PARTS))[:, place]
    parts = [pa.array(np.ascontiguousarray(points[:, one])) for one in range(len(PARTS))]
    return pa.StructArray.from_arrays(parts, PARTS)


class _Source:
    """The columns of some datasets, and their rows a piece at a time."""

    def __init__(self, sets: Sequence[ShardSet], *, quarantine: bool = False) -> None:
        self._sets = sets
        self._quarantine = quarantine
        self._in_set: list[tuple[str, dict[str, pa.DataType]]] = []
        for one in sets:
            fields = QUARANTINE_SCHEMA if quarantine else arrow_schema(one.manifest.fields)
            added = {} if quarantine else {"shard": pa.string()}
            own = dict(zip(fields.names, fields.types, strict=True))
            self._in_set.append((one.folder.url, {"dataset": pa.string(), **added, **own}))

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """The Arrow type of every column by name, without joints."""
        return {name: kind for _, kinds in self._in_set for name, kind in kinds.items()}

    def schema(self, names: Iterable[str], what: str) -> pa.Schema:
        """The schema of the columns with these names, which may be joints.

        ``what``: the argument that names them, for errors.

        Raises:
            UsageError: a column does not exist, or has different types in two datasets.
        """
        if isinstance(names, str):
            raise UsageError(f"{what}: must be a list of names, got {names!r:.80}")
        fields = [(name, self._kind(name, what)) for name in dict.fromkeys(names)]
        if not fields:
            raise UsageError(f"{what}: must name at least one column")
        return pa.schema(fields)

    def _kind(self, name: str, what: str) -> pa.DataType:
        found = {kinds[name]: url for url, kinds in self._in_set if name in kinds}
        if len(found) > 1:
            listed = ", ".join(f"{kind} in {url}" for kind, url in found.items())
            raise UsageError(f"{what}: {name!r} is {listed}: query one dataset at a time")
        if found:
            return next(iter(found))
        joint, dot, part = name.partition(".")
        if joint in PLACE and joint not in self.kinds and not self._quarantine:
            if not dot:
                return JOINT
            if part in PARTS:
                return pa.float32()
        raise UsageError(f"{what}: no column {name!r:.80}{self._instead_of(name, what)}")

    def _instead_of(self, name: str, what: str) -> str:
        """The end of the error for an unknown column: a similar name, and all columns."""
        joints = () if self._quarantine else PLACE
        known = {one.lower(): one for one in (*self.kinds, *joints)}
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
        if what == "where" and not near:
            hint = f" (write a text in single quotes: {name!r:.80})"
        more = " and joints such as left_heel.conf" if joints else ""
        return f"{hint}; the columns are {', '.join(self.kinds)}{more}"

    def found(
        self, where: str | None, on_rows: Callable[[int], None] | None = None
    ) -> "Iterator[tuple[_Piece, NDArray[np.int64]]]":
        """Each piece with the numbers of its rows that meet a condition, ascending.

        Raises:
            UsageError: the text is not a valid condition on these rows.
        """
        condition = None if where is None else _parse(where)
        names = () if condition is None else condition.names
        if len({name.lower() for name in names}) < len(names):
            listed = ", ".join(sorted(names))
            raise UsageError(
                f"where: two of the names {listed} differ only in upper and lower case, which "
                "DuckDB does not tell apart: use one of them"
            )
        schema = self.schema(("source_row", *names), "where")  # a table needs at least one column

        def found() -> "Iterator[tuple[_Piece, NDArray[np.int64]]]":
            for piece in self.pieces():
                table = piece.table(schema)
                every = np.arange(table.num_rows)
                yield piece, every if condition is None else condition.places(table)
                if on_rows is not None:
                    on_rows(table.num_rows)

        return found()

    def pieces(self) -> Iterator[_Piece]:
        """The rows of all datasets in their order.

        Raises:
            ShardError: an index or a quarantine is missing or damaged.
        """
        for one in self._sets:
            if self._quarantine:
                batches = [read_quarantine(one.folder, one.manifest)]
                yield _Piece(data_set=one, first=0, batches=batches)
            else:
                yield from _pieces(one)


def _parse(where: str) -> "Where":
    from refit_shard.where import Where

    return Where(where)


def _pieces(data_set: ShardSet) -> Iterator[_Piece]:
    """The rows of a dataset, a few shards at a time."""
    first, batches = 0, []
    entries = data_set.manifest.shards
    for number, entry in enumerate(entries, 1):
        batches.append(open_index(data_set.folder, entry, data_set.manifest.fields))
        if number == len(entries) or sum(batch.num_rows for batch in batches) >= PIECE:
            yield _Piece(data_set=data_set, first=first, batches=batches)
            first, batches = number, []
