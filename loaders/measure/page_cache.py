"""The system's page cache: which files it holds, and having it forget them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

_PROBES = 16


def drop_from_cache(files: Iterable[Path]) -> None:
    """Have the system forget the contents of files, which are written out first.

    It is a request: pages that a program maps stay, as do all of a file system in memory.
    """
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):  # where neither is known, the files stay in the cache
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(files: Iterable[Path]) -> float | None:
    """The share of some places, spread over the files, that the page cache holds; None where the
    file system does not tell. Looking may have the system read around the places that it lacks.
    """
    every = list(files)
    chosen = np.linspace(0, len(every) - 1, min(len(every), _PROBES)).round().astype(int)
    held = [_is_cached(every[one]) for one in chosen.tolist()]
    known = [one for one in held if one is not None]
    return sum(known) / len(known) if known else None


def _is_cached(path: Path) -> bool | None:
    """Whether the byte in the middle of a file is in the page cache; None where that is unknown."""
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
