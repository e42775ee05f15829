"""Memory for the images of batches, used again once nobody can see a batch any more.

A batch of 64 normalised images has 50 MB. Fresh memory of that size comes from the system a page at
a time, and its first touch takes longer than all the work that fills it.

Where CUDA is in use, the memory is PyTorch's page-locked memory, from which a batch is sent without
the loop's waiting for it. PyTorch uses it again too, and alone knows until when the device reads
from it: so no piece of ours is page-locked.

The memory is this process's own: one that is forked has a copy, as of any other memory.
"""

import math
import mmap
import weakref

import numpy as np
import torch


class BatchMemory:
    """Pieces of memory for images of one shape and type; for many threads at once.

    Pages are allocated on first use; pieces are reused last in, first out. ``device``: the number
    of the CUDA device that batches will be sent to, if any.
    """

    def __init__(
        self, pieces: int, shape: tuple[int, ...], dtype: torch.dtype, device: int | None = None
    ) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self._image_bytes = math.prod(shape[1:]) * torch.empty((), dtype=dtype).element_size()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        size = max(1, shape[0] * self._image_bytes)
        self._free = [
            np.frombuffer(mmap.mmap(-1, size, flags), np.uint8)
            for _ in range(pieces if device is None else 0)
        ]

    def take(self, count: int) -> torch.Tensor:
        """Memory for ``count`` images, for as long as the tensor or anything that shares its
        memory is held.
        """
        shape = (count, *self._shape[1:])
        if self._device is not None:
            return page_locked(shape, self._dtype, self._device)
        try:
            piece = self._free.pop()
        except IndexError:
            return torch.empty(shape, dtype=self._dtype)
        lent = piece[: count * self._image_bytes].view()
        # A tensor made of an array holds that very array as long as anything shares its memory.
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return torch.from_numpy(lent).view(self._dtype).view(shape)


def device_in_use() -> int | None:
    """The number of this process's CUDA device, if it uses one: asking begins nothing.

    A process that has not used CUDA when an iteration begins may never do so, and to begin would
    take seconds and hundreds of MB. A forked one cannot use its parent's.
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if used else None


def page_locked(shape: tuple[int, ...], dtype: torch.dtype, device: int) -> torch.Tensor:
    """New page-locked memory; PyTorch keeps it until what was sent from it has arrived."""
    with torch.cuda.device(device):  # a thread begins with device 0, and would set that up
        return torch.empty(shape, dtype=dtype, pin_memory=True)
