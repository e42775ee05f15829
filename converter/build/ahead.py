"""Reads files before they are used, several at a time, so that a core does not wait for storage."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType

from refit_shard.converter.reading import Room

# An object store answers after 100 ms, and a core uses up to 150 frames in a second.
FILES_AHEAD = 16
BYTES_AHEAD = 64 << 20
# How long closing waits for reads in flight; a thread whose read hangs longer is abandoned.
_PATIENCE_SECONDS = 5.0

_Order = tuple["Future[bytes]", int, str]


class ReadAhead:
    """Reads files in order, in threads, while earlier ones are used.

    A context manager; the threads end with it. Iterating gives, for each path, a function that
    waits for the file and returns its bytes, or raises what ``read`` raised.

    Args:
        read: reads one file. It is called with the path and a function that it must call with the
            file's size before it allocates the memory; that function waits until there is room. The
            file that is used next does not wait, however large it is.
        paths: of the files, in the order of their use.
        files: the most files that are being read or wait to be used, besides the one in use.
        most_bytes: the most bytes of these files together.
    """

    def __init__(
        self,
        read: Callable[[str, Room], bytes],
        paths: Sequence[str],
        *,
        files: int = FILES_AHEAD,
        most_bytes: int = BYTES_AHEAD,
    ) -> None:
        self._read = read
        self._paths = iter(enumerate(paths))
        self._files = files
        self._memory = _Memory(most_bytes)
        self._ahead: deque[tuple[int, Future[bytes]]] = deque()
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
        for _, future in self._ahead:
            future.cancel()
        self._memory.close()
        for _ in self._threads:
            self._orders.put(None)
        until = time.monotonic() + _PATIENCE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def __iter__(self) -> Iterator[Callable[[], bytes]]:
        self._fill()
        while self._ahead:
            number, future = self._ahead.popleft()
            self._memory.use(number)
            future.exception()  # waits until the file is read
            self._fill()
            yield future.result

    def _fill(self) -> None:
        """Request the next files, as many as may be read ahead."""
        while len(self._ahead) < self._files and (found := next(self._paths, None)) is not None:
            number, path = found
            future: Future[bytes] = Future()
            self._ahead.append((number, future))
            self._orders.put((future, number, path))
            if len(self._threads) < sum(not one.done() for _, one in self._ahead):
                serve = threading.Thread(target=self._serve, daemon=True, name="read ahead")
                serve.start()
                self._threads.append(serve)

    def _serve(self) -> None:
        """A reading thread: read one requested file after the other, until None arrives."""
        while (order := self._orders.get()) is not None:
            future, number, path = order
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._read(path, partial(self._memory.take, number)))
                except BaseException as error:
                    future.set_exception(error)
            del future, order  # so that this thread does not keep the file's bytes


class _Memory:
    """Limits the bytes of files that were read ahead to ``most``. Files are numbered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, int] = {}
        self._used = -1  # the number of the file in use, or waited for
        self._closed = False
        self._changed = threading.Condition()

    def take(self, number: int, size: int) -> None:
        """Wait until there is room for a file's bytes; a repeated read of the same file counts
        once.

        Raises:
            CancelledError: the reader was closed.
        """
        with self._changed:
            self._held.pop(number, None)
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or number <= self._used
                    or sum(self._held.values()) + size <= self._most
                )
            )
            if self._closed:
                raise CancelledError
            if number > self._used:
                self._held[number] = size

    def use(self, number: int) -> None:
        """Note that a file is used next: it need not wait, and no longer counts as read ahead."""
        with self._changed:
            self._used = number
            self._held.pop(number, None)
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
