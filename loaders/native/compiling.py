"""Compiling the library from ``source/``, by the compiler that is at hand.

    python loaders/native/compiling.py

The instruction set is chosen when the library runs, never here.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "source"
NAME = "librefit.so"
OPTIONS = (
    *("-O3", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-s"),
    # Sums and products stay apart: the same bits on every processor.
    *("-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-pthread"),
)


class CompilerError(Exception):
    """No compiler that works was found; the message has what each of them said."""


def compilers() -> Iterator[list[str]]:
    """Commands that may compile C++, those of the environment and the system first."""
    if chosen := os.environ.get("CXX"):
        yield chosen.split()
    yield from ([name] for name in ("c++", "g++", "clang++") if shutil.which(name))
    if find_spec("ziglang") is not None:
        # Left to itself it compiles for this very processor.
        yield [sys.executable, "-m", "ziglang", "c++", "-mcpu=baseline"]


def sources() -> list[Path]:
    """The files of the library, headers too."""
    return sorted(SOURCE.glob("*.h")) + sorted(SOURCE.glob("*.cc"))


def is_current(folder: Path = FOLDER) -> bool:
    """Whether a folder has the library, and made of these sources."""
    made = folder / NAME
    newest = max(path.stat().st_mtime for path in (*sources(), Path(__file__)))
    return made.exists() and made.stat().st_mtime >= newest


def compile_library(
    folder: Path = FOLDER, *options: str, compiler: Sequence[str] | None = None
) -> Path:
    """Compile the library into a folder, by ``compiler`` or the first that works.

    The file appears by rename, so that nobody loads a half of it.

    Raises:
        CompilerError: there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, partial = folder / NAME, folder / f".{NAME}.{os.getpid()}"
    units = [str(path) for path in sources() if path.suffix == ".cc"]
    said = []
    for command in compilers() if compiler is None else [compiler]:
        # What is linked dynamically is the C library alone.
        full = [*command, *OPTIONS, *options, *units, "-Wl,--as-needed", "-o", str(partial)]
        try:
            done = subprocess.run(full, capture_output=True, text=True, check=False)
        except OSError as error:
            said.append(f"{command[0]}: {error}")
            continue
        if done.returncode == 0:
            partial.replace(made)
            return made
        said.append(f"{' '.join(command)}: {done.stderr.strip()}")
    partial.unlink(missing_ok=True)
    raise CompilerError("\n".join(said) or "no C++ compiler: install g++, or pip install ziglang")


if __name__ == "__main__" and not is_current():
    compile_library()
