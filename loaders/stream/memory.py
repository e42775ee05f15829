"""Memory for the images of batches, reused once nothing refers to a batch any more.

A batch of 64 normalised images has 50 MB. The system allocates fresh memory of that size page by
page on first use, which takes longer than all the work that fills it.

If CUDA is in use, the memory is PyTorch's page-locked memory, from which batches are copied to the
device asynchronously. PyTorch itself reuses that memory, and only PyTorch knows until when the
device reads from it, so the pieces kept here are never page-locked.

A forked process has its own copy of the memory.
"""

import math
import mmap
import weakref

import numpy as np
import torch


class BatchMemory:
    """Pieces of memory for images of one shape and dtype; may be used by many threads at once.

    Pages are allocated on first use; pieces are reused last in, first out. ``device``: number of
    the CUDA device to which batches are copied, or None.
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
        """A tensor for ``count`` images. Its memory is reused once neither the tensor nor anything
        that shares its memory is referenced.
        """
        shape = (count, *self._shape[1:])
        if self._device is not None:
            return page_locked(shape, self._dtype, self._device)
        try:
            piece = self._free.pop()
        except IndexError:
            return torch.empty(shape, dtype=self._dtype)
        lent = piece[: count * self._image_bytes].view()
        # A tensor made from an array keeps that array alive as long as anything shares its memory.
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return torch.from_numpy(lent).view(self._dtype).view(shape)


def device_in_use() -> int | None:
    """The number of this process's CUDA device, or None if the process has not used CUDA so far.

    CUDA is not initialised here: that would take seconds and hundreds of MB in a process that may
    never use it, and a forked process cannot use its parent's CUDA.
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if used else None


def page_locked(shape: tuple[int, ...], dtype: torch.dtype, device: int) -> torch.Tensor:
    """New page-locked memory; PyTorch keeps it until copies from it are finished."""
    with torch.cuda.device(device):  # new threads have device 0 and would initialise it
        return torch.empty(shape, dtype=dtype, pin_memory=True)
