"""Mixing: maps a stream position to (source, draw index), in closed form.

A binary tree over the sources splits the stream: each node sends some of its items to the left
child and the others to the right child, and a leaf is a source. How many of a node's first n items
go left is a function of n alone, the node's *walk*. So the source of any position, and the number
of draws of each source before it, are found by descending the tree.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.philox import PhiloxStreams

Ints = NDArray[np.int64]

# All positions are below this, so that they and their halves are exact in float64.
_ITEMS = 1 << 52
# The largest position at which an epoch may begin, so that the longest epoch still fits.
FARTHEST = _ITEMS // 2


class Walk(Protocol):
    """Counts how many of the first n items of a node go left."""

    def before(self, first: int, count: int) -> Ints:
        """Number of left items before each of the items first … first + count, (count + 1,)."""


class _EvenWalk:
    """Sends round(n * ``ratio``) of the first n items left."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def before(self, first: int, count: int) -> Ints:
        """See :class:`Walk`."""
        items = np.arange(first, first + count + 1)
        left: Ints = np.floor(items * self._ratio + 0.5).astype(np.int64)
        return left


# Within a leaf of 2**_LEAF_BITS items, a random walk decides each item separately.
_LEAF_BITS = 10
_LEAF = 1 << _LEAF_BITS
_LEVELS = _ITEMS.bit_length() - 1 - _LEAF_BITS
# Up to this many items of the rarer direction, an interval's split is drawn exactly.
_EXACT = 1024
_FLIPS = 64 * 64
_FLIPS_SIGMA = math.sqrt(_FLIPS / 4 + 1 / 6)


class _Interval(NamedTuple):
    """Interval ``number`` of a level: how many items go left ``before`` it, and ``left`` in it."""

    number: int
    before: int
    left: int


class _RandomWalk:
    """Each item goes left with probability ``ratio``, independently of the others.

    The number of left items among all 2**52 is drawn from the binomial distribution, then that in
    each half from the hypergeometric distribution, and so on down to leaves of 1024 items, in which
    the left items are a random subset. Each draw is a function of its interval alone. For the whole
    and for intervals with more than 1024 items of the rarer direction, a normal distribution with
    the same mean and variance is used instead; it misplaces less than 0.01 % of the probability.
    All arithmetic is exact or rounded as by IEEE 754, so every machine gets the same walk.
    """

    def __init__(self, ratio: float, seed: int, purpose: str) -> None:
        self._seed = seed
        self._purpose = purpose
        sigma = math.sqrt(_ITEMS * ratio * (1 - ratio))
        bits = PhiloxStreams(seed, purpose).at(0, 0)
        left = math.floor(_ITEMS * ratio + sigma * _normal(bits) + 0.5)
        whole = _Interval(0, 0, min(max(left, 0), _ITEMS))
        # The intervals from the root to the leaf that was last used, and the leaf's counts: one
        # tuple, replaced in one assignment, so that threads may share a walk.
        self._last: tuple[list[_Interval], Ints] = [whole], np.zeros(0, np.int64)

    def before(self, first: int, count: int) -> Ints:
        """See :class:`Walk`."""
        found = np.empty(count + 1, np.int64)
        done = 0
        while done <= count:
            leaf, begin = divmod(first + done, _LEAF)
            part = self._counts(leaf)[begin : begin + count + 1 - done]
            found[done : done + len(part)] = part
            done += len(part)
        return found

    def _counts(self, leaf: int) -> Ints:
        """Number of left items before each item of a leaf and, last, before the next leaf."""
        path, counts = self._last
        if len(path) > _LEVELS and path[-1].number == leaf:
            return counts
        known = 1
        while known < len(path) and path[known].number == leaf >> (_LEVELS - known):
            known += 1
        path = path[:known]
        places = PhiloxStreams(self._seed, self._purpose)
        for level in range(known, _LEVELS + 1):
            path.append(_half_of(path[-1], level, leaf >> (_LEVELS - level), places))
        _, before, left = path[-1]
        shuffled = np.argsort(places.at(_LEVELS + 1, leaf).random_raw(_LEAF), kind="stable")
        counts = np.zeros(_LEAF + 1, np.int64)
        counts[1 + shuffled[:left]] = 1
        counts = before + np.cumsum(counts)
        self._last = path, counts
        return counts


def _half_of(parent: _Interval, level: int, number: int, places: PhiloxStreams) -> _Interval:
    """Interval ``number`` of a level, one of the halves of ``parent``."""
    left = _in_first_half(parent.left, _ITEMS >> level, places.at(level, parent.number))
    if number % 2 == 0:
        return _Interval(number, parent.before, left)
    return _Interval(number, parent.before + left, parent.left - left)


def _in_first_half(chosen: int, half: int, bits: np.random.Philox) -> int:
    """Random number of ``chosen`` random places among 2 * half that are in the first half.

    ``half`` is a power of two.
    """
    rare = min(chosen, 2 * half - chosen)
    if rare <= _EXACT:
        first = _exactly_in_first_half(rare, half, bits)
    else:
        # Rounding to a whole number adds 1/12 to the variance.
        variance = rare * (2 * half - rare) / (4 * (2 * half - 1)) - 1 / 12
        first = math.floor(rare / 2 + math.sqrt(variance) * _normal(bits) + 0.5)
        first = min(max(first, 0), rare)
    return first if rare == chosen else half - first


def _exactly_in_first_half(chosen: int, half: int, bits: np.random.Philox) -> int:
    """The same, exactly, by drawing that many different places one by one."""
    places = np.zeros(0, np.uint64)
    found: Ints = np.zeros(0, np.int64)
    while len(found) < chosen:
        more = bits.random_raw(2 * chosen + 16) & np.uint64(2 * half - 1)
        places = np.concatenate([places, more])
        found = np.sort(np.unique(places, return_index=True)[1])[:chosen]
    return int(np.count_nonzero(places[found] < half))


def _normal(bits: np.random.Philox) -> float:
    """A nearly normal number with mean 0 and variance 1: the sum of 4096 coin flips, smoothed by
    adding two uniform numbers.

    The Box-Muller transform is not used because logarithm and cosine differ between machines.
    """
    words = bits.random_raw(_FLIPS // 64 + 2)
    flips = int.from_bytes(words[2:].tobytes(), "little").bit_count()
    high, low = (int(word) >> 11 for word in words[:2])  # int, as numpy 1 would make floats
    smooth = (high + low) * 2.0**-53 - 1.0
    return (flips - _FLIPS / 2 + smooth) / _FLIPS_SIGMA


@dataclass(frozen=True)
class _Node:
    """A node of the tree: a source, or two children between which ``walk`` splits the items."""

    source: int = -1
    walk: Walk | None = None
    left: "_Node | None" = None
    right: "_Node | None" = None


def _tree(ratios: Sequence[float], walk: Callable[[int, float], Walk]) -> _Node:
    """The Huffman tree of the ratios: only rare sources are deep, which keeps the sum of rounding
    errors small.

    ``walk`` makes the walk of a node from its number and the share of items that go left.
    """
    heap: list[tuple[float, int, _Node]] = [
        (ratio, index, _Node(source=index)) for index, ratio in enumerate(ratios) if ratio > 0
    ]
    heapq.heapify(heap)
    number = len(ratios)
    while len(heap) > 1:
        light, _, right = heapq.heappop(heap)
        heavy, _, left = heapq.heappop(heap)
        node = _Node(walk=walk(number, heavy / (heavy + light)), left=left, right=right)
        heapq.heappush(heap, (heavy + light, number, node))
        number += 1
    return heap[0][2]


class Origin(NamedTuple):
    """The position from which on the ratios apply, and each source's number of draws before it."""

    position: int
    draws: tuple[int, ...]


class Mixer:
    """Maps positions, from ``origin`` on, to draws of the sources; see :func:`make_mixer`."""

    def __init__(self, root: _Node, origin: Origin) -> None:
        self._root = root
        self.origin = origin
        self._origin_draws = np.array(origin.draws, np.int64)

    def assign(self, first: int, count: int) -> tuple[Ints, Ints]:
        """Source and draw index, each (count,), of the positions first … first + count - 1."""
        sources = np.empty(count, np.int64)
        draws = np.empty(count, np.int64)
        stack = [(self._root, np.arange(count), first - self.origin.position)]
        while stack:
            node, places, number = stack.pop()
            if node.left is None or node.right is None or node.walk is None:
                sources[places] = node.source
                draws[places] = np.arange(number, number + len(places))
            elif len(places):
                before = node.walk.before(number, len(places))
                left = before[1:] > before[:-1]
                stack.append((node.left, places[left], int(before[0])))
                stack.append((node.right, places[~left], number - int(before[0])))
        return sources, draws + self._origin_draws[sources]

    def counts(self, position: int) -> Ints:
        """Number of draws of each source before ``position``, (sources,)."""
        result = self._origin_draws.copy()
        stack = [(self._root, position - self.origin.position)]
        while stack:
            node, number = stack.pop()
            if node.left is None or node.right is None or node.walk is None:
                result[node.source] += number
            elif number:
                left = int(node.walk.before(number, 0)[0])
                stack += [(node.left, left), (node.right, number - left)]
        return result


def make_mixer(
    mixing: str, ratios: Sequence[float], seed: int, origin: Origin | None = None
) -> Mixer:
    """The mixer of a stream.

    ``mixing``: with ``"exact"`` the first n positions from ``origin`` on contain n * ratio samples
    of each source to within 1.5, because each node adds at most 1/2 to its part of its parent's
    error. With ``"iid"`` the source of each position is drawn independently, as in ReFit's
    MixedDataset. ``origin``: None for the beginning of the stream.
    """
    if origin is None:
        origin = Origin(0, (0,) * len(ratios))

    def walk(number: int, ratio: float) -> Walk:
        if mixing == "exact":
            return _EvenWalk(ratio)
        return _RandomWalk(ratio, seed, f"mix/{origin.position}/{number}")

    return Mixer(_tree(ratios, walk), origin)
