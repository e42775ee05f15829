"""Runs tasks, in this process or by Ray's workers. The only module that imports Ray."""

import importlib
import itertools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from refit_shard.converter.build.deadline import deadline
from refit_shard.converter.build.ray_room import cannot_start, local_options
from refit_shard.shards_spec.errors import PassingError, RefitShardError, StorageError, UsageError

# Tasks submitted to Ray beyond the running ones, so that no worker waits for its next task.
_AHEAD = 2
_RETRIES_OF_A_DEAD_WORKER = 5
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
_SECONDS_A_PIECE = 2.0
_LEAST_SECONDS = 600.0

Shared = TypeVar("Shared")
Result = TypeVar("Result")


class Indexed(Protocol):
    """A task with a number."""

    @property
    def index(self) -> int:
        """The number of the task."""


Task = TypeVar("Task", bound=Indexed)


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Shared, Task, Result]):
    """The function ``do(shared, task)`` that is called for every task, with the same ``shared``.

    ``seconds``: returns a task's time limit on Ray. ``deaths``: text for the error if a task's
    workers die repeatedly, which says what may have killed them.
    """

    do: Callable[[Shared, Task], Result]
    shared: Shared
    seconds: Callable[[Task], float]
    deaths: str


def time_limit(pieces: int) -> float:
    """Time limit in seconds for a task of this many rows or frames: about a hundred times what one
    core needs, and at least ten minutes.
    """
    return max(_LEAST_SECONDS, _SECONDS_A_PIECE * pieces)


def run_tasks(
    work: Work[Shared, Task, Result],
    tasks: Iterator[Task],
    on_result: Callable[[int, Result | BaseException], None],
    *,
    workers: int | None,
    address: str | None,
) -> None:
    """Run the tasks in this process if ``workers`` is 0, else on Ray; see :func:`run_on_ray`."""
    if workers == 0:
        run_here(work, tasks, on_result)
    else:
        run_on_ray(work, tasks, on_result, workers=workers, address=address)


def run_here(
    work: Work[Shared, Task, Result],
    tasks: Iterator[Task],
    on_result: Callable[[int, Result | BaseException], None],
) -> None:
    """Run the tasks one after another in this process."""
    for task in tasks:
        try:
            result: Result | BaseException = work.do(work.shared, task)
        except Exception as error:
            if _stops(error):
                raise
            result = error
        on_result(task.index, result)


def _stops(error: BaseException) -> bool:
    """True if an error ends the whole run, as a failed write does. After a failed read only the
    task fails.
    """
    return isinstance(error, (StorageError, UsageError)) and not isinstance(error, PassingError)


@contextmanager
def ray_session(*, workers: int | None, address: str | None) -> Iterator[None]:
    """Connect to the Ray cluster at ``address``, or start Ray on this machine with ``workers``
    cores.

    If Ray is already initialized in this process, it is used and not shut down.

    Raises:
        UsageError: no cluster answers at the address.
        RefitShardError: Ray does not start on this machine.
    """
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    options |= local_options(workers) if address is None else {"address": _answering(ray, address)}
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain exceptions too
        raise (cannot_start(error) if address is None else _no_cluster(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _answering(ray: Any, address: str) -> str:
    """The address, with ``auto`` resolved, if its port answers: Ray itself would try for
    minutes.
    """
    try:
        if address == "auto":
            found = ray._private.services.get_ray_address_from_environment("auto", None)
        else:
            found = address
        place = urlsplit("//" + found.removeprefix("ray://"))
        if not place.hostname or not place.port:
            raise ValueError("must be auto, HOST:PORT or ray://HOST:PORT")
        socket.create_connection((place.hostname, place.port), _ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error
    return str(found)


def _no_cluster(address: str | None, error: Exception) -> UsageError:
    line = " ".join(str(error).split()) or "no answer"
    return UsageError(f"--address {address}: cannot use a Ray cluster there: {line}")


def do_in_time(
    do: Callable[[Shared, Task], Result], shared: Shared, task: Task, seconds: float
) -> Result:
    """Run one task in a Ray worker, which is killed if the task takes longer than ``seconds``.

    The limit is set in the worker, because only the worker knows when a queued task began. Ray
    notices a worker's death at once, frees the core, and runs the task again, as another attempt.
    """
    with deadline(seconds):
        return do(shared, task)


def run_on_ray(
    work: Work[Shared, Task, Result],
    tasks: Iterator[Task],
    on_result: Callable[[int, Result | BaseException], None],
    *,
    workers: int | None,
    address: str | None,
) -> None:
    """Run the tasks on Ray; at most a few more tasks than workers are submitted at a time.

    If a task's worker dies, or is killed by the time limit, Ray runs the task again, on another
    node if one is free. ``on_result`` is called with each task's index and its result or error;
    after an error the other tasks continue.

    Raises:
        StorageError, UsageError: nothing more can be written; the other tasks are dropped.
    """
    ray = _ray()
    with ray_session(workers=workers, address=address), _interrupts() as raise_interrupt:
        remote = ray.remote(
            num_cpus=1, max_retries=_RETRIES_OF_A_DEAD_WORKER, scheduling_strategy="SPREAD"
        )(do_in_time).options(name=work.do.__name__)
        with _same_package():
            shared = ray.put(work.shared)
        running: dict[Any, int] = {}
        try:
            while True:
                raise_interrupt()
                room = _room(ray, workers, address)
                for task in itertools.islice(tasks, max(0, room - len(running))):
                    with _same_package():
                        reference = remote.remote(work.do, shared, task, work.seconds(task))
                    running[reference] = task.index
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)
                for reference in done:
                    on_result(running.pop(reference), _collect(ray, reference, work.deaths))
        except Exception:
            # Tasks are not cancelled, because a task that is cancelled while it ends makes Ray
            # abort this process. An interrupt is not an Exception: the end of the session stops the
            # workers then.
            if running:
                ray.wait(list(running), num_returns=len(running))
            raise


def _ray() -> Any:
    return importlib.import_module("ray")  # a heavy import


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C and SIGTERM; gives a function that raises KeyboardInterrupt if one has arrived.
    At the end of the block a delayed one is raised in any case.

    Ray's client loses an interrupt that is raised within it, or breaks. A second interrupt is
    raised at once.
    """
    heard: list[int] = []
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt

    def raise_heard() -> None:
        if heard:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield raise_heard
        return
    for number in usual:
        signal.signal(number, note)
    try:
        yield raise_heard
        raise_heard()
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _same_package() -> Iterator[None]:
    """Turn the error of a cluster that cannot import what it receives into one line."""
    try:
        yield
    except (AttributeError, ImportError) as error:
        raise UsageError(
            f"--address: the cluster lacks this package or has another version of it ({error}); "
            "install the same one on every node"
        ) from error


def _room(ray: Any, workers: int | None, address: str | None) -> int:
    """How many tasks may be submitted at a time; asked again, because nodes join and leave."""
    if workers is not None and address is not None:
        return workers  # a cluster with more cores would also run the tasks submitted ahead
    return (workers or max(1, int(ray.cluster_resources().get("CPU", 0)))) + _AHEAD


def _collect(ray: Any, reference: Any, deaths: str) -> Any:
    """The result of a task, or the error that it ended with."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if _stops(cause):
            raise type(cause)(*cause.args) from error
        return cause
    except ray.exceptions.RayError as error:
        return RefitShardError(
            f"its worker died again and again ({type(error).__name__}): {deaths}"
        )
