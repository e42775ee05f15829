"""Reading apart: order, and what a file costs that crashes, loops or asks for all memory."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from refit_shard.converter.importers.apart import Task, read_apart
from refit_shard.shards_spec.errors import SourceError, StorageError, UsageError
from tests.small import PROJECT


def twice(number: int) -> int:
    """A quick task; the first ones last longest."""
    time.sleep(0.05 if number < 2 else 0)
    return 2 * number


def crash(_number: int) -> None:
    """As a library of C may."""
    os.kill(os.getpid(), signal.SIGSEGV)


def loop(_number: int) -> None:
    """Without end."""
    while True:
        time.sleep(1)


def swallow(_number: int) -> int:
    """More memory than any file needs."""
    return len(np.ones(4 << 30, np.uint8))


def fail(_number: int) -> None:
    """As a library may on damage."""
    raise KeyError("x" * 1000)


def broken(_number: int) -> None:
    """As a disk may."""
    raise OSError(errno.EIO, "Input/output error")


def refuse(number: int) -> None:
    """An error of ours."""
    raise UsageError(f"no {number}")


def ignores(_number: int) -> bool:
    """Whether Ctrl-C is left to the command."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def tasks(function: object, count: int) -> list[Task[object]]:
    """The same call with the numbers from 0."""
    return [
        Task(function=function, arguments=(n,), where=Path(f"file{n}"), size=n)  # type: ignore[arg-type]
        for n in range(count)
    ]


def test_results_come_in_order_from_any_number_of_processes() -> None:
    for workers in (1, 3):
        found = [
            (task.size, result) for task, result in read_apart(tasks(twice, 7), workers=workers)
        ]
        assert found == [(n, 2 * n) for n in range(7)]
    assert list(read_apart([])) == []


def test_ctrl_c_is_the_command_s() -> None:
    """In every reader, the first of a program too, and not in the program."""
    code = """
import signal
from refit_shard.converter.importers.apart import read_apart
from tests.converter.importers.test_apart import ignores, tasks
print([result for _, result in read_apart(tasks(ignores, 3), workers=3)])
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert said.stdout == "[True, True, True]\nFalse\n"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (crash, r"file0: the process that read it died \(exit code -11\)"),
        (loop, r"file0: not read within 1 seconds"),
        (swallow, r"file0: reading it takes more than 1073741824 bytes of memory"),
        (fail, r"file0: damaged, or in another format \(KeyError: 'x{199}\)$"),
        (broken, r"^file0: Input/output error$"),
        (refuse, "no 0"),
    ],
)
def test_a_harmful_file_is_one_error_that_names_it(function: object, said: str) -> None:
    kinds: dict[object, type[Exception]] = {refuse: UsageError, broken: StorageError}
    kind = kinds.get(function, SourceError)
    with pytest.raises(kind, match=said):
        list(read_apart(tasks(function, 1), seconds=1, memory=1 << 30))


def test_no_process_outlives_its_reading() -> None:
    def children() -> set[str]:
        return {
            path.name
            for path in Path("/proc").iterdir()
            if path.name.isdigit()
            and (path / "stat").exists()
            and re.search(rf"\) [^Z] {os.getpid()} ", (path / "stat").read_text(errors="replace"))
        }

    list(read_apart(tasks(twice, 2)))  # multiprocessing's own helper process is there from now on
    before = children()
    reading = read_apart(tasks(twice, 5), workers=2)
    next(reading)
    assert len(children() - before) >= 1
    reading.close()  # type: ignore[attr-defined]
    assert not children() - before
