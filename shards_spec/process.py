"""Counts the cores that this process may use, and sets glibc up for a process that handles
images.
"""

import ctypes
import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_KEPT_BYTES = 256 << 20


_CGROUPS = Path("/sys/fs/cgroup")


def available_cores(proc: Path = Path("/proc/self/cgroup"), mount: Path = _CGROUPS) -> int:
    """The number of cores that this process may use: by its affinity and by the CPU quota of its
    control groups (containers).

    A quota of one and a half cores counts as two. ``proc``, ``mount``: where Linux states the
    groups.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota(proc, mount))))


def _quota(proc: Path, mount: Path) -> float:
    """The smallest CPU quota, in cores, of the process's control groups and their parents; infinity
    if there is none.

    In a container the group's own folder is often missing, but its limits are at the mount point.
    """
    quotas = [math.inf]
    with suppress(OSError, ValueError):
        for line in proc.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = mount / "cpu" if controllers and (mount / "cpu").is_dir() else mount
            place = top / group.strip("/")
            for folder in (place, *place.parents):
                quotas.append(_quota_at(folder))
                if folder == top:
                    break
    return min(quotas)


def _quota_at(folder: Path) -> float:
    """The CPU quota, in cores, that a control group's folder states, of version 2 or 1; infinity if
    none.
    """
    with suppress(OSError, ValueError, ArithmeticError):
        texts = (folder / "cpu.max").read_text().split()
        return math.inf if texts[0] == "max" else int(texts[0]) / int(texts[1])
    with suppress(OSError, ValueError, ArithmeticError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return math.inf if quota <= 0 else quota / period
    return math.inf


@cache
def settle_process() -> None:
    """Set glibc's allocator up for images, once per process.

    Freed memory is kept: by default glibc returns each frame's megabytes to the system and gets
    them back with page faults, which takes a seventh of a build's time. All threads share one
    arena, so that memory freed by one thread is reused by others.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)
