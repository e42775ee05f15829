"""The library, compiled, and a process with it preloaded."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.small import PROJECT

Fault = tuple[str, int, int, int]  # call, its first that fails, how many (-1: all), errno


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``calls``: "NAME /path" each, below the folder that is watched."""

    code: int
    said: str
    calls: list[str]
    failed: int


class Machine:
    """A machine whose file system fails as it is told to."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=PROJECT,
            env={**os.environ, "LD_PRELOAD": str(library), "TMPDIR": str(library.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        folder: Path,
        *args: object,
        fault: Fault | None = None,
        traced: bool = False,
        entry: str = "refit_shard.cli:main",
    ) -> Outcome:
        """Run a command, or another function of a list of strings that returns an exit code; calls
        on paths below the folder may fail.
        """
        order = {
            "entry": entry,
            "args": [str(arg) for arg in args],
            "folder": str(folder),
            "fault": fault,
            "traced": traced,
            "seconds": 120,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _compiler() -> list[str]:
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    pytest.skip("no C compiler: install one, or ziglang, as make test does")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library."""
    place = tmp_path_factory.mktemp("library") / "faults.so"
    source = Path(__file__).with_name("library.c")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        [*_compiler(), *flags, "-o", str(place), str(source), "-ldl", "-lpthread"], check=True
    )
    return place


@pytest.fixture(scope="session")
def machine(library: Path) -> Iterator[Machine]:
    """One process for all commands."""
    machine = Machine(library)
    yield machine
    machine.close()
