"""Reads files in separate processes, as many as there are cores.

The libraries for MATLAB's, HDF5's and CDF files are large, and a damaged file can make them
allocate any amount of memory, loop or crash. In a separate process that costs one error line.
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

# Of addresses, beyond what a process has when it begins; of time, for one task.
MEMORY_BYTES = 4 << 30
SECONDS = 300.0
# Of time, until a process has started and imported what a task needs.
START_SECONDS = 120.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Task(Generic[T]):
    """A function to call in a separate process, named by its module, with picklable arguments.

    ``where``: the first file that it reads, for errors. ``size``: bytes that count as done
    afterwards.
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
    """What a library says of a file, as an error that names it.

    Raises:
        StorageError: it could not be read, which says nothing of what it holds.
        SourceError: anything else, but errors of ours and a lack of memory.
    """
    try:
        yield
    except (RefitShardError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in many ways
        # The libraries' own errors have no number, or that of a place before the beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise explain(error, str(path)) from error
        said = f"{type(error).__name__}: {error!s:.200}"
        raise SourceError(f"{path}: damaged, or of another kind ({said})") from error


def _serve(connection: Connection, memory: int) -> None:
    """The loop of a reading process: do the calls that arrive, until the pipe is closed."""
    warnings.simplefilter("ignore")  # what a file is refused for is an error, in its line
    _limit(memory)
    while True:
        try:
            function, arguments, where = connection.recv()
        except EOFError:
            return
        connection.send(None)  # all that it needs is imported: its time begins
        reply: tuple[Any, RefitShardError | None]
        try:
            with naming(where):
                reply = function(*arguments), None
        except RefitShardError as error:
            reply = None, error
        except MemoryError:
            reply = None, SourceError(f"{where}: asks for more than {memory} bytes of memory")
        connection.send(reply)


class _Reader:
    """One process, and the task that it is at."""

    def __init__(self, memory: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, memory), daemon=True)
        # Ctrl-C is for the command, which ends its readers; they inherit that it is blocked. The
        # tracker goes first: when it is started, multiprocessing unblocks it again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def start(self, task: Task[Any]) -> None:
        """Hand over a task."""
        try:
            self._connection.send((task.function, task.arguments, task.where))
        except BrokenPipeError:  # it died between two tasks; finish() tells
            return

    def finish(self, task: Task[T], seconds: float) -> T:
        """The task's result.

        Raises:
            SourceError: the file could not be read within limits, or the process died of it.
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
                f"{task.where}: the process that read it died ({self._process.exitcode}); the "
                "file is damaged, or memory was short"
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
    """Each task with its result, in order, made in as many processes as may run.

    Raises:
        SourceError: a task's file cannot be read: it says so, asks for more than ``memory`` bytes,
            takes more than ``seconds``, or ends the process that reads it.
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
