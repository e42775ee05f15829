"""A lock that a process may hold while another thread forks it."""

import os
import threading
import weakref
from types import TracebackType

_ALL: "weakref.WeakSet[ForkLock]" = weakref.WeakSet()


class ForkLock:
    """A lock that is free in a forked process, whichever thread of the parent held it: that thread
    is not in the child, and would never let go of it there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Free it, in a child that has one thread yet."""
        self._lock = threading.Lock()


def _renew_all() -> None:
    for lock in list(_ALL):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
