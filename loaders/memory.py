"""Memory for the images of batches, shared with the processes that make them.

A batch of 64 normalised images has 50 MB. Fresh memory of that size comes from the system a page at
a time, and its first touch takes longer than all the work that fills it; and what goes through a
pipe is copied twice. So a few pieces of memory are made before the workers are forked, and each is
used again once nobody holds its batch any more. They have no name, so nothing outlives a crash.

A process that is forked sees the memory of its parent. So a batch that is held at that moment is
made the parent's own first: from then on parent and child have a copy each, as of any other memory,
and its piece is never used again. Workers look at no batch, so their forks change nothing.
"""

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_MAYMOVE_AND_FIXED = 3  # of Linux's mremap
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int, ctypes.c_void_p]


class _Loan:
    """A piece of memory while its batch is held; ``free`` gets its number back afterwards."""

    def __init__(self, lent: NDArray[Any], number: int, free: list[int]) -> None:
        self._lent = weakref.ref(lent)
        self._number = number
        self._free: list[int] | None = free

    def end(self) -> None:
        """Nobody holds the batch any more."""
        _LOANS.discard(self)
        if self._free is not None:
            self._free.append(self._number)

    def keep(self) -> None:
        """Put memory of this process alone in the place of the shared one, with its content.

        Where there is no room for it, parent and child go on with the same memory.
        """
        lent = self._lent()
        if lent is None or self._free is None:
            return
        self._free = None  # workers still have the shared one
        address, size = lent.ctypes.data, lent.nbytes
        how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        own = _libc.mmap(None, size, *how, -1, 0)
        if own != _FAILED:
            ctypes.memmove(own, address, size)
            _libc.mremap(own, size, size, _MAYMOVE_AND_FIXED, address)


_LOANS: set[_Loan] = set()
_LENDING = threading.RLock()  # held while a process is forked
_forking = threading.local()


@contextmanager
def forking_workers() -> Iterator[None]:
    """Processes that this thread forks look at no batch that is held."""
    _forking.workers = True
    try:
        yield
    finally:
        _forking.workers = False


def _before_fork() -> None:
    _LENDING.acquire()
    if not getattr(_forking, "workers", False):
        for loan in list(_LOANS):
            loan.keep()


os.register_at_fork(
    before=_before_fork, after_in_parent=_LENDING.release, after_in_child=_LENDING.release
)


class BatchMemory:
    """Pieces of memory of one shape and type, by number; for the process that made them to lend.

    Memory that was never lent takes none of the system's. What was given back last is lent first.
    """

    def __init__(self, pieces: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = max(1, math.prod(shape) * dtype.itemsize)
        self._pieces = [
            np.frombuffer(mmap.mmap(-1, size), dtype, math.prod(shape)).reshape(shape)
            for _ in range(pieces)
        ]
        self._free = list(reversed(range(pieces)))
        self._owner = os.getpid()

    def take(self) -> int | None:
        """The number of a piece that nobody holds, or None if all are held."""
        if not self._free or os.getpid() != self._owner:
            return None
        return self._free.pop()

    def array(self, number: int, count: int) -> NDArray[Any]:
        """The first ``count`` elements of a piece, in any process."""
        return self._pieces[number][:count]

    def lend(self, number: int, count: int) -> torch.Tensor:
        """The first ``count`` elements of a piece; it is free again once the tensor and all that
        shares its memory are gone.
        """
        lent = self._pieces[number][:count].view()
        with _LENDING:
            loan = _Loan(lent, number, self._free)
            _LOANS.add(loan)
            # A tensor made of an array holds that very array as long as anything shares its memory.
            weakref.finalize(lent, loan.end).atexit = False
        return torch.from_numpy(lent)
