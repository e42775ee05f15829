"""Memory for the images of batches, used again once nobody holds a batch any more.

A batch of 64 normalised images has 50 MB. Fresh memory of that size comes from the system a page at
a time, and its first touch takes longer than all the work that fills it.
"""

import weakref

import numpy as np
import torch
from numpy.typing import NDArray


class BatchMemory:
    """Arrays of one shape and type; safe to use from many threads.

    ``pinned``: page-locked, so that a GPU copies from it while the program goes on.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool) -> None:
        self._shape = shape
        self._dtype = dtype
        self._pinned = pinned
        self._free: list[torch.Tensor] = []

    def take(self, count: int) -> tuple[torch.Tensor, NDArray[np.generic]]:
        """A tensor (count, …) of any content, and its elements as an array.

        The memory comes back by itself once the tensor, every view of it and the array are gone.
        """
        try:
            whole = self._free.pop()
        except IndexError:
            whole = torch.empty(self._shape, dtype=self._dtype, pin_memory=self._pinned)
        lent = whole.numpy()[:count].view()
        # The tensor made of ``lent`` holds it for as long as anything shares the tensor's memory.
        weakref.finalize(lent, self._free.append, whole).atexit = False
        return torch.from_numpy(lent), lent
