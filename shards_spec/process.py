"""Setting up a process whose whole work is images: a builder or a loader's worker."""

import ctypes
from functools import cache

import cv2

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 256 << 20


@cache
def settle_process() -> None:
    """Set this process up for the work, once.

    One thread for OpenCV: a worker has one core, and OpenCV's own threads would fight over the
    others'. And glibc keeps the memory that it frees: left alone it gives every frame's megabytes
    back to the system and faults them in again, a seventh of a build's time.
    """
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
