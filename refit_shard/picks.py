"""Random samples of datasets, for pictures."""

from collections.abc import Iterator, Sequence

import numpy as np

from refit_shard.rows import Chosen, selected
from refit_shard.shards_spec.reader import Sample, ShardSet


def choose(sets: Sequence[ShardSet], where: str | None) -> Iterator[Chosen]:
    """The rows that meet a condition, or all rows if it is None, in the order of the datasets.

    Raises:
        UsageError: ``where`` is not a valid condition on these rows.
        ShardError: an index is missing or damaged.
    """
    if where is not None:
        yield from selected(sets, where)
        return
    for one in sets:
        for shard, entry in enumerate(one.manifest.shards):
            yield Chosen(one, shard, np.arange(entry.rows))


def pick(chosen: Sequence[Chosen], count: int, seed: int) -> list[Sample]:
    """At most ``count`` of these rows, chosen at random by the seed, in their original order."""
    ends = np.cumsum([len(one.rows) for one in chosen], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    numbers = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    found = []
    for number in np.sort(numbers).tolist():
        at = int(np.searchsorted(ends, number, "right"))
        row = int(chosen[at].rows[number - ends[at]])
        found.append(chosen[at].data_set.shard(chosen[at].shard).sample(row))
    return found


def share_out(counts: Sequence[int], wanted: int) -> list[int]:
    """How many samples of each dataset to show so that they are ``wanted`` in all.

    The shares are as equal as the datasets' ``counts`` of samples allow.
    """
    given = [0] * len(counts)
    for _ in range(min(wanted, sum(counts))):
        short = [at for at, count in enumerate(counts) if given[at] < count]
        given[min(short, key=lambda at: given[at])] += 1
    return given
