"""Memory for the images of batches, shared with the processes that make them.

A batch of 64 normalised images has 50 MB. Fresh memory of that size comes from the system a page at
a time, and its first touch takes longer than all the work that fills it; and what goes through a
pipe is copied twice. So a few pieces of memory are made before the workers are forked, and each is
used again once nobody holds its batch any more. They have no name, so nothing outlives a crash.
"""

import math
import mmap
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class BatchMemory:
    """Pieces of memory of one shape and type, by number.

    Memory that was never lent takes none of the system's. What was given back last is lent first.
    """

    def __init__(self, pieces: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = max(1, math.prod(shape) * dtype.itemsize)
        self._pieces = [
            np.frombuffer(mmap.mmap(-1, size), dtype, math.prod(shape)).reshape(shape)
            for _ in range(pieces)
        ]
        self._free = list(reversed(range(pieces)))

    def take(self) -> int | None:
        """The number of a piece that nobody holds, or None if all are held."""
        return self._free.pop() if self._free else None

    def array(self, number: int, count: int) -> NDArray[Any]:
        """The first ``count`` elements of a piece, in any process."""
        return self._pieces[number][:count]

    def lend(self, number: int, count: int) -> torch.Tensor:
        """The first ``count`` elements of a piece; it is free again once the tensor and all that
        shares its memory are gone.
        """
        lent = self._pieces[number][:count].view()
        # A tensor made of an array holds that very array as long as anything shares its memory.
        weakref.finalize(lent, self._free.append, number).atexit = False
        return torch.from_numpy(lent)
