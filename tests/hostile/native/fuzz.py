"""Searches for inputs that break the compiled library: ``make fuzz PARSER=native``; needs clang.

    python -m tests.hostile.native.fuzz [decode|batch] [libFuzzer's options]

The library is compiled again with AddressSanitizer and UndefinedBehaviorSanitizer. Inputs that
break it are written to the current folder as ``crash-*``.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders.native.compiling import SOURCE, sources
from refit_shard.shards_spec import jpeg
from tests.small import picture

HERE = Path(__file__).parent
TARGETS = ("decode", "batch")
CLANG = ("clang++", "clang++-14")
OPTIONS = ("-g", "-O1", "-std=c++17", "-ffp-contract=off", "-fno-exceptions", "-pthread")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CHOICE = struct.Struct("<BBhh" + "hB" * 9 + "B" + "hBhBhBb" * 4 + "B")
EFFECTS = struct.Struct("<bBhi15B")


def compile_target(
    name: str, folder: Path, *, searching: bool = True, library: Path = SOURCE
) -> Path:
    """Compile a target with the sanitizers; returns the path of the program.

    Args:
        name: the target.
        folder: where the program is written.
        searching: True for a libFuzzer program, which needs clang; False for a program that runs
            the target on the files given as arguments.
        library: the folder of the C++ sources.

    Raises:
        FileNotFoundError: no compiler is installed.
    """
    made = folder / name
    units = [library / path.name for path in sources() if path.suffix == ".cc"]
    units += [HERE / f"{name}.cc"] if searching else [HERE / f"{name}.cc", HERE / "main.cc"]
    kind = ["-fsanitize=fuzzer"] if searching else []
    for compiler in CLANG if searching else (*CLANG, "g++"):
        command = [compiler, *OPTIONS, *SANITIZERS, *kind, f"-I{library}", *map(str, units)]
        try:
            subprocess.run([*command, "-o", str(made)], check=True)
        except FileNotFoundError:
            continue
        return made
    raise FileNotFoundError("needs clang and its runtime: apt-get install clang libclang-rt-14-dev")


def jpegs() -> list[bytes]:
    """Small stored crops of several kinds, and a JPEG that is not a stored crop."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (33, 20, 3), np.uint8)
    made = [encode(picture(3, w, h), q) for w, h, q in ((48, 32, 90), (17, 5, 30), (16, 16, 75))]
    plain = cv2.imencode(".jpg", picture(1, 40, 24))[1].tobytes()
    return [*made, encode(noise, 100), plain]


def write_seeds(name: str, folder: Path) -> None:
    """Write the first inputs of a search."""
    folder.mkdir()
    for path in sorted((HERE / "corpus").glob(f"{name}-*")):
        (folder / path.name).write_bytes(path.read_bytes())
    for number, data in enumerate(jpegs()):
        height, width = jpeg.size(data)
        turned = (700, 10, 300, 10, 3, 0, -300, 10, 700, 10, 4, 0)
        factors, pastes = (1, 0, 5, 2, 3, 1), (10, 0, 12, 0, 3, 1, 0) * 4
        choice = (31, number % 3, height, width, *turned, *factors, 2, *pastes)
        if name == "decode":
            (folder / str(number)).write_bytes(data)
            continue
        (folder / str(number)).write_bytes(CHOICE.pack(*choice, 1) + data)
        effects = EFFECTS.pack(3 + 9 * number, number & 1, 300, -4000, *(9 - number,) * 13, 0, 1)
        (folder / f"{number}-effects").write_bytes(CHOICE.pack(*choice, 7) + effects + data)


def main(*arguments: str) -> int:
    """Search with all targets, or with the named one; returns the first exit code that is not 0."""
    named = [name for name in TARGETS if name in arguments[:1]]
    options = arguments[len(named) :]
    with tempfile.TemporaryDirectory() as place:
        for name in named or TARGETS:
            seeds = Path(place) / f"{name}-seeds"
            write_seeds(name, seeds)
            program = compile_target(name, Path(place))
            found = Path(place) / f"{name}-found"
            found.mkdir()
            command = [str(program), "-max_len=8192", "-rss_limit_mb=2048", *options]
            done = subprocess.run([*command, str(found), str(seeds)], check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
