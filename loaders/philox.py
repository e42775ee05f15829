"""Random numbers as a function of (seed, purpose, position): no state, no order of calls.

Only the raw Philox stream is used, which numpy promises never to change; the conversions are
written here, so a seed means the same stream under every version of numpy.
"""

import hashlib
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Philox gives this many 64-bit words for each value of its counter.
WORDS = 4


def generator(seed: int, purpose: str, counter: int = 0) -> np.random.Philox:
    """The Philox stream of a seed and purpose, positioned at ``counter``."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.random.Philox(key=key, counter=counter)


class PhiloxStreams:
    """Philox streams of one seed and purpose, one for every (level, number).

    All are one generator whose counter is moved, which is quick. So only the stream that was asked
    for last is valid, and threads must not share an object.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._philox = generator(seed, purpose)
        self._state: Any = self._philox.state

    def at(self, level: int, number: int) -> np.random.Philox:
        """The stream of (level, number) from its beginning; valid until the next call."""
        self._state["state"]["counter"] = np.array([0, number, level, 0], np.uint64)
        self._philox.state = self._state
        return self._philox


class _Moving(threading.local):
    """A thread's generator of one seed and purpose, whose counter is moved.

    Making a new generator takes ten times as long, because numpy asks the system for a seed that is
    then not used.
    """

    of: tuple[int, str] | None = None

    def at(self, seed: int, purpose: str, counter: int) -> np.random.Philox:
        """The stream of :func:`generator`."""
        if self.of != (seed, purpose):
            self._philox = generator(seed, purpose)
            self._state: Any = self._philox.state
            self.of = seed, purpose
        words = [counter >> shift & 2**64 - 1 for shift in (0, 64, 128, 192)]
        self._state["state"]["counter"] = np.array(words, np.uint64)
        self._philox.state = self._state
        return self._philox


_moving = _Moving()


def uniforms(seed: int, purpose: str, first: int, count: int, words: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), ``words`` for each of the positions first … first + count - 1.

    Returns (count, words) float64; ``words`` is a multiple of four. A position's numbers do not
    depend on which other positions are asked for.
    """
    raw = _moving.at(seed, purpose, first * (words // WORDS)).random_raw(count * words)
    values = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return values.reshape(count, words)


def permutation(seed: int, purpose: str, count: int) -> NDArray[np.int64]:
    """A random permutation of 0 … count - 1: a stable argsort of random words."""
    words = generator(seed, purpose).random_raw(count)
    order = np.argsort(words)  # not stable, but three times as fast; the same if no words are equal
    placed = words[order]
    if (placed[1:] == placed[:-1]).any():
        order = np.argsort(words, kind="stable")
    return order
