"""Mixing: which source a position of the stream is drawn from, and its how-many-th draw it is."""

import heapq
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loaders.random import WORDS, uniforms

Ints = NDArray[np.int64]

_BLOCK = 1 << 16


class Mixer(Protocol):
    """A function from positions to draws."""

    def assign(self, first: int, count: int) -> tuple[Ints, Ints]:
        """For positions first … first + count - 1: the source, and the number of its draw."""

    def counts(self, position: int) -> Ints:
        """Draws of each source before ``position``."""

    def resume(self, position: int, counts: Ints) -> None:
        """Make ``position`` quick to reach, given the counts that were saved there."""


@dataclass(frozen=True)
class _Node:
    """A source, or two parts of the stream of which ``left`` takes the share ``ratio``."""

    source: int = -1
    ratio: float = 0.0
    left: "_Node | None" = None
    right: "_Node | None" = None


def _tree(ratios: Sequence[float]) -> _Node:
    """Huffman's tree of the ratios: rare sources lie deep, so that rounding adds up to little."""
    heap: list[tuple[float, int, _Node]] = [
        (ratio, index, _Node(source=index)) for index, ratio in enumerate(ratios) if ratio > 0
    ]
    heapq.heapify(heap)
    order = len(ratios)
    while len(heap) > 1:
        light, _, right = heapq.heappop(heap)
        heavy, _, left = heapq.heappop(heap)
        node = _Node(ratio=heavy / (heavy + light), left=left, right=right)
        heapq.heappush(heap, (heavy + light, order, node))
        order += 1
    return heap[0][2]


def _left_of(ratio: float, count: Ints) -> Ints:
    """Of ``count`` items of a node, how many went left: the nearest whole number to the share."""
    left: Ints = np.floor(count * ratio + 0.5).astype(np.int64)
    return left


class ExactMixer:
    """Every prefix of n positions holds n * ratio of each source, to within 1.5.

    A binary tree splits the stream: of the m items that reach a node, floor(m * ratio + 1/2) go
    left. So a node's share is off by at most 1/2 more than its part of its parent's error, and
    both the source of any position and the counts before it are closed forms.
    """

    def __init__(self, ratios: Sequence[float]) -> None:
        self._sources = len(ratios)
        self._root = _tree(ratios)

    def assign(self, first: int, count: int) -> tuple[Ints, Ints]:
        """See :class:`Mixer`."""
        sources = np.empty(count, np.int64)
        draws = np.empty(count, np.int64)
        stack = [(self._root, np.arange(count), np.arange(first, first + count, dtype=np.int64))]
        while stack:
            node, places, number = stack.pop()
            if node.left is None or node.right is None:
                sources[places], draws[places] = node.source, number
                continue
            before = _left_of(node.ratio, number)
            left = _left_of(node.ratio, number + 1) > before
            stack.append((node.left, places[left], before[left]))
            stack.append((node.right, places[~left], (number - before)[~left]))
        return sources, draws

    def counts(self, position: int) -> Ints:
        """See :class:`Mixer`."""
        result = np.zeros(self._sources, np.int64)
        stack = [(self._root, np.int64(position))]
        while stack:
            node, count = stack.pop()
            if node.left is None or node.right is None:
                result[node.source] = count
                continue
            left = np.int64(_left_of(node.ratio, np.asarray(count)))
            stack += [(node.left, left), (node.right, count - left)]
        return result

    def resume(self, position: int, counts: Ints) -> None:
        """Nothing to do: every position is as quick as the first."""


class IidMixer:
    """Every position draws its source independently, as ReFit's MixedDataset does.

    The first source i with u <= cumulative ratio i, so the counts before a position are a sum;
    they are kept at the beginning of every block that was visited.
    """

    def __init__(self, ratios: Sequence[float], seed: int) -> None:
        self._seed = seed
        self._edges = np.cumsum(ratios)
        self._edges[np.flatnonzero(np.asarray(ratios) > 0)[-1] :] = 1.0  # whatever the rounding
        self._known: dict[int, Ints] = {0: np.zeros(len(ratios), np.int64)}
        self._lock = threading.Lock()

    def _sources(self, first: int, last: int) -> Ints:
        begin, end = first // WORDS, -(-last // WORDS)
        values = uniforms(self._seed, "mix", begin, end - begin, WORDS).ravel()
        values = values[first - begin * WORDS : last - begin * WORDS]
        return np.searchsorted(self._edges, values, side="left")

    def counts(self, position: int) -> Ints:
        """See :class:`Mixer`."""
        with self._lock:
            place = max(known for known in self._known if known <= position)
            counts = self._known[place]
            while place < position:
                end = min(position, (place // _BLOCK + 1) * _BLOCK)
                found = self._sources(place, end)
                counts = counts + np.bincount(found, minlength=len(self._edges))
                place = end
                if place % _BLOCK == 0:
                    self._known[place] = counts
            return counts

    def assign(self, first: int, count: int) -> tuple[Ints, Ints]:
        """See :class:`Mixer`."""
        sources = self._sources(first, first + count)
        draws = np.empty(count, np.int64)
        for source, before in enumerate(self.counts(first).tolist()):
            mine = sources == source
            draws[mine] = before + np.arange(np.count_nonzero(mine))
        return sources, draws

    def resume(self, position: int, counts: Ints) -> None:
        """See :class:`Mixer`."""
        with self._lock:
            self._known[position] = np.asarray(counts, np.int64)


def make_mixer(mixing: str, ratios: Sequence[float], seed: int) -> Mixer:
    """``"exact"`` or ``"iid"``."""
    return ExactMixer(ratios) if mixing == "exact" else IidMixer(ratios, seed)
