"""Runs a parser on many inputs in another process, which may crash and has little memory."""

import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.small import PROJECT

MEMORY = 1 << 30
_SIGHTS = (0, 1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)


def mutated(data: bytes, count: int, *, seed: int = 0, head: int | None = None) -> Iterator[bytes]:
    """Copies with one to four places overwritten, half of these in the first ``head`` bytes."""
    for number in range(count):
        rng = random.Random(seed + number)
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            end = min(len(data), head or len(data)) if rng.random() < 0.5 else len(data)
            at, size = rng.randrange(end), rng.choice((1, 2, 4, 8))
            number_there = rng.choice(_SIGHTS) % (1 << 8 * size)
            numbers = number_there.to_bytes(size, rng.choice(("little", "big")))
            spoilt[at : at + size] = rng.choice((rng.randbytes(size), numbers))
        yield bytes(spoilt[: rng.randrange(len(data))] if rng.random() < 0.1 else spoilt)


def outcomes(module: str, whole: bytes, cases: Iterable[bytes], place: Path) -> list[str]:
    """The outcome of ``module.parse`` on each case: "read", or the class of a RefitShardError.

    Fails if the process died, another error was raised, or the undamaged file ``whole`` is not
    read.
    """
    folder = place / "cases"
    folder.mkdir()
    for number, data in enumerate([whole, *cases]):
        (folder / f"case-{number:06d}.arrow").write_bytes(data)
    quiet = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.child", module, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=PROJECT,
        env={**os.environ, **quiet},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-2000:])
    bare = [line for line in lines if " BARE " in line]
    assert not bare, (bare[:5], folder)
    found = [line.partition(" ")[2] for line in lines]
    assert found[0] == "read"
    return found[1:]
