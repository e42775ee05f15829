"""Where shards are built: in this process, or by Ray's workers. The only module that knows Ray."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from converter.work import Recipe, ShardResult, ShardTask, build_shard
from shards_spec.errors import RefitShardError, StorageError, UsageError

# Tasks handed to Ray beyond those that run, so that no worker waits for its next one.
_AHEAD = 2
_RETRIES_OF_A_DEAD_WORKER = 5
_POLL_SECONDS = 0.5

OnResult = Callable[[int, ShardResult | BaseException], None]


def run_here(recipe: Recipe, tasks: Iterator[ShardTask], on_result: OnResult) -> None:
    """Build the shards one after another in this process."""
    for task in tasks:
        try:
            result = build_shard(recipe, task)
        except (StorageError, UsageError):
            raise
        except Exception as error:
            on_result(task.index, error)
        else:
            on_result(task.index, result)


@contextmanager
def ray_session(*, workers: int | None, address: str | None) -> Iterator[None]:
    """A Ray to build on: the cluster at ``address``, or a local one with ``workers`` cores.

    Where this process has a Ray already, that one is used and stays.

    Raises:
        UsageError: no cluster answers at the address.
    """
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        options |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise UsageError(f"--address {address}: no Ray cluster there: {line}") from error
    try:
        yield
    finally:
        ray.shutdown()


def run_on_ray(
    recipe: Recipe,
    tasks: Iterator[ShardTask],
    on_result: OnResult,
    *,
    workers: int | None,
    address: str | None,
) -> None:
    """Build the shards on Ray, a task each; at most a few more than the workers are in flight.

    A task whose worker died is run again by Ray. One that fails is reported and the others go on.

    Raises:
        StorageError, UsageError: nothing more can be written; the other tasks are dropped.
    """
    ray = _ray()
    with ray_session(workers=workers, address=address):
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES_OF_A_DEAD_WORKER)(build_shard)
        shared = ray.put(recipe)
        running: dict[Any, int] = {}
        try:
            while True:
                for task in itertools.islice(tasks, count + _AHEAD - len(running)):
                    running[remote.remote(shared, task)] = task.index
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)
                for reference in done:
                    _collect(ray, reference, running.pop(reference), on_result)
        except Exception:
            # Not cancelled: a task that is cancelled while it ends makes Ray abort this process.
            # An interrupt does not wait here: the end of the session stops the workers.
            if running:
                ray.wait(list(running), num_returns=len(running))
            raise


def _ray() -> Any:
    return importlib.import_module("ray")  # heavy, and only needed here


def _collect(ray: Any, reference: Any, index: int, on_result: OnResult) -> None:
    try:
        result: ShardResult | BaseException = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, (StorageError, UsageError)):
            raise type(cause)(*cause.args) from error
        result = cause
    except ray.exceptions.RayError as error:
        result = RefitShardError(f"its worker died again and again ({type(error).__name__})")
    on_result(index, result)
