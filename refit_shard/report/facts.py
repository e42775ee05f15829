"""The content of a report: statistics of each dataset, duplicates, and the mix of an epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.loaders.stream.simulate import epoch_draws
from refit_shard.picks import choose
from refit_shard.report.duplicates import Place, Seen, Twice, find_twice
from refit_shard.report.statistics import Counter, Statistics
from refit_shard.rows import Chosen
from refit_shard.shards_spec.reader import Sample, ShardSet, open_index, read_seal


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """One dataset of a report.

    Attributes:
        name: its unique name on the page.
        data_set: the open dataset.
        statistics: counts of the chosen rows.
        chosen: the rows that the report describes, by shard.
    """

    name: str
    data_set: ShardSet
    statistics: Statistics
    chosen: tuple[Chosen, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """One dataset of a mix: its ratio, its rows, and its samples in an epoch."""

    name: str
    ratio: float
    rows: int
    drawn: int

    @property
    def repeats(self) -> float:
        """How often a row is drawn in an epoch, on average."""
        return self.drawn / max(1, self.rows)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The mix of datasets in an epoch of a training config."""

    samples: int
    batch_size: int
    shares: tuple[Share, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Two rows with the same frame or crop: their keys and their frames' names."""

    first: str
    second: str
    first_imgname: str
    second_imgname: str


@dataclass(frozen=True, kw_only=True)
class Common:
    """Frames or crops that are in two datasets or twice in one; ``kind``: ``"frame"`` or
    ``"crop"``.
    """

    first: str
    second: str
    kind: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Statistics and duplicates of all datasets of a report."""

    sets: tuple[SetFacts, ...]
    common: tuple[Common, ...]

    @property
    def rows(self) -> int:
        """Rows of all datasets."""
        return sum(one.statistics.rows for one in self.sets)


def gather(
    sets: Sequence[ShardSet], where: str | None, on_rows: Callable[[int], None] = lambda _: None
) -> Facts:
    """Read the index tables of some datasets.

    Args:
        sets: open datasets.
        where: which rows, see :func:`refit_shard.rows.rows`; None for all.
        on_rows: called with how many more rows were read.

    Raises:
        UsageError: ``where`` is not a valid condition on these rows.
        ShardError: an index is missing or damaged.
    """
    counters = [Counter() for _ in sets]
    seen = [Seen() for _ in sets]
    chosen: list[list[Chosen]] = [[] for _ in sets]
    numbers = {id(one): number for number, one in enumerate(sets)}
    for one in choose(sets, where):
        number = numbers[id(one.data_set)]
        manifest, folder = one.data_set.manifest, one.data_set.folder
        entry = manifest.shards[one.shard]
        index = open_index(folder, entry, manifest.fields)
        read_seal(index, f"{folder.url}/{entry.name}.arrow")
        batch = index if len(one.rows) == index.num_rows else index.take(pa.array(one.rows))
        counters[number].add(batch)
        seen[number].add(batch, one.shard, one.rows)
        chosen[number].append(one)
        on_rows(entry.rows)
    found = tuple(
        SetFacts(name=name, data_set=one, statistics=counter.result(), chosen=tuple(rows))
        for name, one, counter, rows in zip(_names(sets), sets, counters, chosen, strict=True)
    )
    return Facts(sets=found, common=tuple(_common(found, twice) for twice in find_twice(seen)))


def _names(sets: Sequence[ShardSet]) -> list[str]:
    """The datasets' names, followed by their folders or URLs where two names are equal."""
    names = [one.manifest.dataset for one in sets]
    return [
        name if names.count(name) == 1 else f"{name} ({one.folder.url})"
        for name, one in zip(names, sets, strict=True)
    ]


def _common(sets: Sequence[SetFacts], twice: Twice) -> Common:
    first, second = sets[twice.first], sets[twice.second]

    def row(one: SetFacts, place: Place) -> Sample:
        return one.data_set.shard(place.shard).sample(place.row)

    examples = [(row(first, a), row(second, b)) for a, b in twice.examples]
    return Common(
        first=first.name,
        second=second.name,
        kind=twice.kind,
        count=twice.count,
        examples=tuple(
            Example(
                first=a["key"],
                second=b["key"],
                first_imgname=a["imgname"],
                second_imgname=b["imgname"],
            )
            for a, b in examples
        ),
    )


def mix_of(facts: Facts, ratios: Sequence[float], options: StreamOptions) -> Mix:
    """The mix of an epoch of one rank; ``ratios`` are in the order of the datasets of ``facts``."""
    rows = [one.statistics.rows for one in facts.sets]
    samples, drawn = epoch_draws(rows, ratios, options, options.batch_size)
    return Mix(
        samples=samples,
        batch_size=options.batch_size,
        shares=tuple(
            Share(name=one.name, ratio=ratio, rows=count, drawn=n)
            for one, ratio, count, n in zip(facts.sets, ratios, rows, drawn, strict=True)
        ),
    )
