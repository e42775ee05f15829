"""Reads files in separate processes, one a core.

A damaged MATLAB, HDF5 or CDF file can make its library allocate any amount of memory, loop or
crash. In a separate process this becomes a one-line error.
"""

import errno
import multiprocessing
import resource
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from refit_shard.shards_spec.errors import RefitShardError, SourceError, explain
from refit_shard.shards_spec.process import available_cores

# Limits for one task: address space beyond what the process has when it starts, and time.
MEMORY_BYTES = 4 << 30
SECONDS = 300.0
# Time limit for starting a process and importing what a task needs.
START_SECONDS = 120.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Task(Generic[T]):
    """A function to call in a separate process, named by its module, with picklable arguments.

    ``where``: the first file that the task reads, for errors. ``size``: bytes by which the progress
    advances when the task is done.
    """

    function: Callable[..., T]
    arguments: tuple[Any, ...]
    where: Path
    size: int


def _limit(memory: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + memory
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [one for one in (wanted, soft, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn a library's exceptions into errors that name the file.

    Raises:
        StorageError: the file could not be read, which says nothing about its content.
        SourceError: any other exception, except RefitShardError and MemoryError, which pass.
    """
    try:
        yield
    except (RefitShardError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways
        # An OSError by the library itself has no number, or EINVAL for seeking to a negative
        # offset.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise explain(error, str(path)) from error
        said = f"{type(error).__name__}: {error!s:.200}"
        raise SourceError(f"{path}: damaged, or in another format ({said})") from error


def _serve(connection: Connection, memory: int) -> None:
    """The loop of a reading process: make the calls that arrive, until the pipe is closed."""
    warnings.simplefilter("ignore")  # what matters is raised as an error
    _limit(memory)
    while True:
        try:
            function, arguments, where = connection.recv()
        except EOFError:
            return
        connection.send(None)  # receiving the task imported what it needs: its time limit begins
        reply: tuple[Any, RefitShardError | None]
        try:
            with naming(where):
                reply = function(*arguments), None
        except RefitShardError as error:
            reply = None, error
        except MemoryError:
            reply = (
                None,
                SourceError(
                    f"{where}: reading it takes more than {memory} bytes of memory; is it damaged?"
                ),
            )
        connection.send(reply)


class _Reader:
    """One reading process, which does one task at a time."""

    def __init__(self, memory: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, memory), daemon=True)
        # Ctrl-C is handled by the command, which ends its readers, so SIGINT is blocked in them.
        # They inherit that. The resource tracker is started before, because starting it unblocks
        # SIGINT.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def start(self, task: Task[Any]) -> None:
        """Send a task to the process."""
        try:
            self._connection.send((task.function, task.arguments, task.where))
        except BrokenPipeError:  # the process died between two tasks; finish() raises the error
            return

    def finish(self, task: Task[T], seconds: float) -> T:
        """The task's result.

        Raises:
            SourceError: the file could not be read within the limits, or the process died.
        """
        try:
            for limit in (START_SECONDS, seconds):
                if not self._connection.poll(limit):
                    raise SourceError(
                        f"{task.where}: not read within {limit:g} seconds; is it damaged, or the "
                        "disk too slow?"
                    )
                received = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise SourceError(
                f"{task.where}: the process that read it died (exit code "
                f"{self._process.exitcode}); the file is damaged, or memory was short"
            ) from None
        result, error = received
        if error is not None:
            raise error
        found: T = result
        return found

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def read_apart(
    tasks: Iterable[Task[T]],
    *,
    workers: int | None = None,
    seconds: float = SECONDS,
    memory: int = MEMORY_BYTES,
) -> Iterator[tuple[Task[T], T]]:
    """Yields each task with its result, in order.

    Args:
        tasks: the tasks.
        workers: number of processes, None for one a core.
        seconds: time limit for one task.
        memory: bytes of memory that a process may take beyond those at its start.

    Raises:
        SourceError: a task raised it, exceeded a limit, or crashed its process.
    """
    waiting = deque(tasks)
    count = min(len(waiting), workers or available_cores())
    with _readers(count, memory) as readers:
        busy: deque[tuple[_Reader, Task[T]]] = deque()
        for reader in readers:
            busy.append((reader, waiting.popleft()))
            reader.start(busy[-1][1])
        while busy:
            reader, task = busy.popleft()
            result = reader.finish(task, seconds)
            if waiting:
                busy.append((reader, waiting.popleft()))
                reader.start(busy[-1][1])
            yield task, result


@contextmanager
def _readers(count: int, memory: int) -> Iterator[list[_Reader]]:
    with ExitStack() as stack:
        readers = []
        for _ in range(count):
            readers.append(_Reader(memory))
            stack.callback(readers[-1].end)
        yield readers
