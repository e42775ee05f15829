"""A lock that is free after a fork, even if another thread held it."""

import os
import threading
import weakref
from types import TracebackType

_ALL: "weakref.WeakSet[ForkLock]" = weakref.WeakSet()


class ForkLock:
    """A lock that is free in a forked child, whichever thread of the parent held it. That thread
    does not exist in the child and could never release it there. Who holds it may take it again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
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
        """Replace the lock by a free one; called in a child while it has a single thread."""
        self._lock = threading.RLock()


def _renew_all() -> None:
    for lock in list(_ALL):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)
