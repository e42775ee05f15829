"""Locks of a process that is forked while a thread holds them."""

import os
import threading

from refit_shard.shards_spec.forks import ForkLock


def test_a_lock_is_free_in_a_child_and_held_in_the_parent() -> None:
    lock, held, done = ForkLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        with lock:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    entered = threading.Event()

    def enter() -> None:
        with lock:
            entered.set()

    other = threading.Thread(target=enter)
    other.start()
    assert not entered.wait(0.1)
    done.set()
    assert entered.wait(60)
    thread.join()
    other.join()
