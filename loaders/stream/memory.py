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
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import UsageError


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
        self._free: list[NDArray[np.uint8]] = []
        # Where the system refuses so much, batches may still be smaller than they may become.
        with suppress(OSError):
            for _ in range(pieces if device is None else 0):
                self._free.append(_piece(max(1, shape[0] * self._image_bytes)))

    def take(self, count: int) -> torch.Tensor:
        """A tensor for ``count`` images. Its memory is reused once neither the tensor nor anything
        that shares its memory is referenced.

        Raises:
            UsageError: there is not that much memory.
        """
        shape = (count, *self._shape[1:])
        if self._device is not None:
            return page_locked(shape, self._dtype, self._device)
        try:
            piece = self._free.pop()
        except IndexError:
            return self._fresh(shape)
        lent = piece[: count * self._image_bytes].view()
        # A tensor made from an array keeps that array alive as long as anything shares its memory.
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
