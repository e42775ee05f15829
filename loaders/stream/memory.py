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
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import UsageError


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
        self._free: list[NDArray[np.uint8]] = []
        # Where the system refuses so much, batches may still be smaller than they may become.
        with suppress(OSError):
            for _ in range(pieces if device is None else 0):
                self._free.append(_piece(max(1, shape[0] * self._image_bytes)))

    def take(self, count: int) -> torch.Tensor:
        """Memory for ``count`` images, for as long as the tensor or anything that shares its
        memory is held.

        Raises:
            UsageError: there is not that much.
        """
        shape = (count, *self._shape[1:])
        if self._device is not None:
            return page_locked(shape, self._dtype, self._device)
        try:
            piece = self._free.pop()
        except IndexError:
            return self._fresh(shape)
        lent = piece[: count * self._image_bytes].view()
        # A tensor made of an array holds that very array as long as anything shares its memory.
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return torch.from_numpy(lent).view(self._dtype).view(shape)

    def _fresh(self, shape: tuple[int, ...]) -> torch.Tensor:
        try:
            return torch.empty(shape, dtype=self._dtype)
        except RuntimeError as error:  # PyTorch's own kind of MemoryError
            raise UsageError(
                f"batch_size: the images of {shape[0]} samples have "
                f"{shape[0] * self._image_bytes / 1e9:.1f} GB, which this machine does not give; "
                "lower batch_size or res"
            ) from error


def _piece(size: int) -> NDArray[np.uint8]:
    """Memory of the system's, in which nothing was allocated yet."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return np.frombuffer(mmap.mmap(-1, size, flags), np.uint8)


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
