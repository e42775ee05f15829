"""The system's page cache: finds and drops the files in it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

_PROBES = 16


def drop_from_cache(files: Iterable[Path]) -> None:
    """Write files to disk and drop them from the page cache.

    Pages that a program has mapped stay in it, as do file systems in memory.
    """
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):  # without these calls the files stay in the cache
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(files: Iterable[Path]) -> float | None:
    """The share of the files that is in the page cache, from samples of them; None if unknown.

    Looking may make the system read the parts that are not in the cache.
    """
    every = list(files)
    chosen = np.linspace(0, len(every) - 1, min(len(every), _PROBES)).round().astype(int)
    held = [_is_cached(every[one]) for one in chosen.tolist()]
    known = [one for one in held if one is not None]
    return sum(known) / len(known) if known else None


def _is_cached(path: Path) -> bool | None:
    """True if the byte in the middle of a file is in the page cache; None if unknown."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        middle = os.fstat(descriptor).st_size // 2
        return os.preadv(descriptor, [bytearray(1)], middle, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return None
    finally:
        os.close(descriptor)
