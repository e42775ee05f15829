"""A time limit enforced by the kernel, whatever the process is doing."""

import ctypes
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Event(ctypes.Structure):
    """Linux' ``struct sigevent``; ``how`` 0 is SIGEV_SIGNAL."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("how", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    """``struct itimerspec``: the interval, which is 0, and the time until the timer expires."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Have the kernel kill this process if the block takes longer than ``seconds``.

    A kernel timer sends SIGKILL, because a read from a dead file system, a loop in C that holds the
    interpreter's lock, and a stopped process react to nothing else. Without such timers (systems
    other than Linux) there is no limit.
    """
    try:
        librt = ctypes.CDLL("librt.so.1", use_errno=True)
    except OSError:
        yield
        return
    timer = ctypes.c_void_p()
    event = _Event(signal=signal.SIGKILL, how=0)
    if librt.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "no timer for the time limit")
    whole = int(seconds)
    times = _Times(value_s=whole, value_ns=int((seconds - whole) * 1e9))
    librt.timer_settime(timer, 0, ctypes.byref(times), None)
    try:
        yield
    finally:
        librt.timer_delete(timer)
