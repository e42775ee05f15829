"""Working ahead on threads, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, ahead: int
) -> Generator[tuple[Job, Result], None, None]:
    """Each job with its result, in order; up to ``ahead`` jobs beyond the ``workers`` running.

    With no workers the work is done here, when it is asked for. Closing the iterator drops what has
    not begun and waits for what has; no thread stays. A job's exception is raised in its place.
    """
    if workers == 0:
        for job in jobs:
            yield job, work(job)
        return
    waiting = iter(jobs)
    running: deque[tuple[Job, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="refit-shard")
    try:
        while True:
            for job in waiting:
                running.append((job, pool.submit(work, job)))
                if len(running) >= workers + ahead:
                    break
            if not running:
                return
            job, future = running.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
