"""Memory for the images of batches, used again once nobody can see a batch any more.

A batch of 64 normalised images has 50 MB. Fresh memory of that size comes from the system a page at
a time, and its first touch takes longer than all the work that fills it.

The memory is this process's own: one that is forked has a copy, as of any other memory.
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

    Pages are allocated on first use; pieces are reused last in, first out.
    """

    def __init__(self, pieces: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = max(1, math.prod(shape) * dtype.itemsize)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._pieces = [
            np.frombuffer(mmap.mmap(-1, size, flags), dtype, math.prod(shape)).reshape(shape)
            for _ in range(pieces)
        ]
        self._free = list(reversed(range(pieces)))

    def take(self) -> int | None:
        """The number of a piece that nobody holds, or None if all are held."""
        return self._free.pop() if self._free else None

    def give_back(self, number: int) -> None:
        """A piece that was taken and never lent is free again."""
        self._free.append(number)

    def array(self, number: int, count: int) -> NDArray[Any]:
        """The first ``count`` elements of a piece."""
        return self._pieces[number][:count]

    def lend(self, number: int, count: int) -> torch.Tensor:
        """The first ``count`` elements of a piece; it is free again once the tensor and all that
        shares its memory are gone.
        """
        lent = self._pieces[number][:count].view()
        # A tensor made of an array holds that very array as long as anything shares its memory.
        weakref.finalize(lent, self._free.append, number).atexit = False
        return torch.from_numpy(lent)
