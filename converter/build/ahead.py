"""Files read ahead of their use, several at a time, so that a core does not wait for storage."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType

# An object store answers after 100 ms, and a core uses up to 150 frames in a second.
FILES_AHEAD = 16
BYTES_AHEAD = 64 << 20
# How long an end before the last file waits for reads in flight; one that hangs is left behind.
_PATIENCE_SECONDS = 5.0

_Order = tuple["Future[bytes]", str]


class ReadAhead:
    """Reads files in their order, on threads of its own, while those before them are used.

    A context manager, with which the threads end. Iterating gives, for each path, a function that
    waits for the file and returns its bytes, or raises what ``read`` raised. At most ``files`` are
    being read or wait to be used, of ``most_bytes`` together: one that is being read counts as
    the largest that came so far, so the first is read alone, and a larger one may go beyond.
    """

    def __init__(
        self,
        read: Callable[[str], bytes],
        paths: Sequence[str],
        *,
        files: int = FILES_AHEAD,
        most_bytes: int = BYTES_AHEAD,
    ) -> None:
        self._read = read
        self._paths = iter(paths)
        self._files = files
        self._most_bytes = most_bytes
        self._largest = 0
        self._ahead: deque[Future[bytes]] = deque()
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for future in self._ahead:
            future.cancel()
        for _ in self._threads:
            self._orders.put(None)
        until = time.monotonic() + _PATIENCE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def __iter__(self) -> Iterator[Callable[[], bytes]]:
        self._fill()
        while self._ahead:
            future = self._ahead.popleft()
            future.exception()  # waits for it
            self._largest = max(self._largest, _held(future))
            self._fill()
            yield future.result

    def _fill(self) -> None:
        """Order the next files, as many as there is room for."""
        while self._has_room() and (path := next(self._paths, None)) is not None:
            future: Future[bytes] = Future()
            self._ahead.append(future)
            self._orders.put((future, path))
            if len(self._threads) < sum(not one.done() for one in self._ahead):
                serve = threading.Thread(
                    target=_serve, args=(self._read, self._orders), daemon=True, name="read ahead"
                )
                serve.start()
                self._threads.append(serve)

    def _has_room(self) -> bool:
        if not self._ahead:
            return True
        if not self._largest or len(self._ahead) == self._files:
            return False
        held = sum(_held(one) if one.done() else self._largest for one in self._ahead)
        return held + self._largest <= self._most_bytes


def _held(future: "Future[bytes]") -> int:
    """Bytes that a file that came holds."""
    return 0 if future.exception() is not None else len(future.result())


def _serve(read: Callable[[str], bytes], orders: "SimpleQueue[_Order | None]") -> None:
    """Read one ordered file after the other, until None comes."""
    while (order := orders.get()) is not None:
        future, path = order
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(read(path))
            except BaseException as error:
                future.set_exception(error)
        del future, order  # the file's bytes are not for this thread to keep
