"""Compiles the library from ``source/`` with an available compiler.

    python loaders/native/compiling.py

The library chooses its instruction set when it runs, not when it is compiled.
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
    # No fused multiply-add, so that results are bit-identical on every processor.
    *("-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-pthread"),
)


class CompilerError(Exception):
    """No working compiler was found; the message contains the output of each one tried."""


def compilers() -> Iterator[list[str]]:
    """Commands of C++ compilers to try: first CXX, then the system's, then ziglang."""
    if chosen := os.environ.get("CXX"):
        yield chosen.split()
    yield from ([name] for name in ("c++", "g++", "clang++") if shutil.which(name))
    if find_spec("ziglang") is not None:
        # Without -mcpu zig compiles for this machine's own processor.
        yield [sys.executable, "-m", "ziglang", "c++", "-mcpu=baseline"]


def sources() -> list[Path]:
    """The source files of the library, including headers."""
    return sorted(SOURCE.glob("*.h")) + sorted(SOURCE.glob("*.cc"))


def is_current(folder: Path = FOLDER) -> bool:
    """True if a folder contains the library and it is newer than the sources."""
    made = folder / NAME
    newest = max(path.stat().st_mtime for path in (*sources(), Path(__file__)))
    return made.exists() and made.stat().st_mtime >= newest


def compile_library(
    folder: Path = FOLDER, *options: str, compiler: Sequence[str] | None = None
) -> Path:
    """Compile the library into a folder with ``compiler``, or the first compiler that works.

    The file is renamed into place when complete, so that no process loads a partial one.

    Raises:
        CompilerError: no compiler works.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, partial = folder / NAME, folder / f".{NAME}.{os.getpid()}"
    units = [str(path) for path in sources() if path.suffix == ".cc"]
    said = []
    for command in compilers() if compiler is None else [compiler]:
        # Only the C library is linked dynamically.
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
