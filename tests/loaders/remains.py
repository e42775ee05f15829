"""What a process still holds: children, threads, file handles."""

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path


def children(pid: int | str = "self") -> list[int]:
    """Processes that a process has started and not yet ended, zombies too."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def open_files() -> int:
    """File handles of this process."""
    return len(os.listdir("/proc/self/fd"))


@dataclass(frozen=True)
class Remains:
    """Children, threads and file handles of this process."""

    children: list[int]
    threads: int
    files: int

    def adds_nothing_to(self, before: "Remains") -> bool:
        """Whether nothing has come since; what an earlier test left may have ended meanwhile."""
        return (
            self.children == before.children
            and self.threads <= before.threads
            and self.files <= before.files
        )


def remains() -> Remains:
    """Those of now; a queue's thread ends a moment after its queue, so it is waited for."""
    end = time.monotonic() + 5
    while any("QueueFeeder" in one.name for one in threading.enumerate()):
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return Remains(children(), threading.active_count(), open_files())
