"""File systems that lack calls: build, subset, cache and readers work there, and say what is lost.

What fails besides is one line, never other bytes.
"""

import errno
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.trees import make_config, make_tree
from tests.faults.conftest import Fault, Machine, Outcome
from tests.faults.errors import ERRORS, ONLY_ONCE, UNKNOWN
from tests.small import hashes, own

EVER = -1
# What the manual pages give for a call that a file system does not have.
LACKS = [
    *(("flock", error) for error in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)),
    *(("fsync", error) for error in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)),
    *(("mmap", error) for error in (errno.ENODEV, errno.EACCES, errno.EINVAL, errno.EPERM)),
    *(("ftruncate", error) for error in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)),
    *(("utimens", error) for error in (errno.EPERM, errno.EACCES, errno.ENOSYS)),
    ("readdir", UNKNOWN),
]
TOLD = {"flock": "has no locks", "fsync": "does not tell when", "ftruncate": "cannot reserve space"}
JOBS = ("build", "subset", "cache", "read")
# The calls of each job that a file system may lack, so that a new one is seen here.
BEYOND = {
    "build": {"flock", "fsync"},
    "subset": {"flock", "fsync"},
    "cache": {"flock", "fsync", "ftruncate", "mmap", "utimens"},
    "read": {"mmap"},
}
PLAIN = {"open", "read", "write", "close", "rename", "unlink", "mkdir", "stat", "fstat", "lseek"}


@dataclass(frozen=True)
class Job:
    """Something to run on files below ``folder``. ``made``: what it writes, below that; where it
    writes nothing that stays, what it prints is its result.
    """

    name: str
    folder: Path
    entry: str
    args: tuple[object, ...]
    made: tuple[str, ...] = ()

    def run(
        self, machine: Machine, fault: Fault | None = None, *, traced: bool = False
    ) -> tuple[Outcome, list[str]]:
        """How it ended, and its result, line by line."""
        done = machine.run(self.folder, *self.args, entry=self.entry, fault=fault, traced=traced)
        if not self.made:
            return done, [line for line in done.said.splitlines() if len(line.split()[-1]) == 64]
        found = hashes(self.folder)
        return done, [f"{name} {found[name]}" for name in found if name.startswith(self.made)]

    def clear(self) -> None:
        """As before the first run."""
        for name in (*self.made, "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Known:
    """A job, its result and its calls when nothing disturbs it."""

    job: Job
    result: list[str]
    calls: list[str]


def make_job(name: str, folder: Path) -> Job:
    """A small job of this name."""
    if name == "subset":
        tree = make_tree("3dpw_test", folder, frames=3)
        config = make_config(folder, [tree])
        args = ("subset-3dpw", "--data-config", config, "--rows", 4, "--workers", 1)
        crops = str((tree.root / "imageCrops").relative_to(folder))
        made = (crops, "dataset_extras/3dpw_test_sub.npz")
        return Job(name, folder, "refit_shard.cli:main", args, made)
    small = own(folder, rows=12)
    build = small.command("--samples-per-shard", 4, "--box-px", 64)
    if name == "build":
        return Job(name, folder, "refit_shard.cli:main", tuple(build), ("shards",))
    assert small.build("--samples-per-shard", 4, "--box-px", 64).code == 0
    entry = "tests.faults.work:" + {"cache": "fill_cache", "read": "read"}[name]
    return Job(name, folder, entry, (small.out, folder / "cache"))


# A build's other faults are in test_build.
OTHERS = pytest.mark.parametrize("known", JOBS[1:], indirect=True)


@pytest.fixture(scope="module", params=JOBS)
def known(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Known:
    """Each job."""
    job = make_job(request.param, tmp_path_factory.mktemp(request.param))
    done, result = job.run(machine, traced=True)
    assert done.code == 0, done.said
    assert result
    job.clear()
    return Known(job, result, done.calls)


def test_the_calls_that_a_file_system_may_lack_are_these(known: Known) -> None:
    used = {line.split()[0] for line in known.calls}
    assert used - PLAIN - {"opendir", "readdir"} == BEYOND[known.job.name]


@pytest.mark.parametrize(("call", "error"), LACKS)
def test_a_call_that_is_not_there_hinders_nothing(
    known: Known, machine: Machine, call: str, error: int
) -> None:
    """The same result; one warning a place where a guard is lost."""
    if call not in {line.split()[0] for line in known.calls}:
        assert call not in BEYOND[known.job.name]
        return
    done, result = known.job.run(machine, (call, 1, EVER, error))
    known.job.clear()
    assert done.failed > 0
    assert done.code == 0, done.said
    assert result == known.result
    told = [line for line in done.said.splitlines() if TOLD.get(call, "no such call") in line]
    assert len(told) == len({line.split(": ")[0] for line in told})
    assert bool(told) == (call in TOLD)


def cases(known: Known) -> list[Fault]:
    """Every call with every errno, once and for ever."""
    found, seen = [], Counter[str]()
    for line in known.calls:
        call = line.split()[0]
        seen[call] += 1
        for error in ERRORS[call]:
            for times in (1,) if error in ONLY_ONCE else (1, EVER):
                found.append((call, seen[call], times, error))
    return found


def wrong(known: Known, machine: Machine, fault: Fault) -> Iterator[str]:
    """What goes wrong with this fault."""
    done, result = known.job.run(machine, fault)
    lines = [line for line in done.said.splitlines() if line.startswith("refit-shard:")]
    if done.code == 0 and result != known.result:
        yield f"exit 0 with another result: {done.said}"
    if not set(known.result).issuperset(one for one in result if "/." not in one):
        yield "something other was published or printed"
    if "Traceback" in done.said:
        yield f"a traceback: {done.said.splitlines()[-1]}"
    elif done.code != 0 and (len(lines) != 1 or done.code not in (1, 2)):
        yield f"exit {done.code}: {done.said}"
    again, result = known.job.run(machine)
    if again.code != 0 or result != known.result:
        yield f"again: exit {again.code}: {again.said}"
    known.job.clear()


def search(known: Known, machine: Machine, faults: list[Fault]) -> None:
    """Run all; tell all that went wrong."""
    found = []
    for fault in faults:
        call, number, times, error = fault
        path = [line for line in known.calls if line.split()[0] == call][number - 1]
        named = f"{errno.errorcode.get(error, str(error))} {'once' if times == 1 else 'for ever'}"
        found += [f"{path} ({number}) {named}: {one}" for one in wrong(known, machine, fault)]
    assert not found, f"of {len(faults)} cases:\n" + "\n".join(found)


@OTHERS
def test_other_faults_are_one_line(known: Known, machine: Machine) -> None:
    """For some calls and errnos."""
    found = cases(known)
    search(known, machine, random.Random(0).sample(found, min(12, len(found))))


@pytest.mark.slow
@OTHERS
def test_every_other_fault_is_one_line(known: Known, machine: Machine) -> None:
    search(known, machine, cases(known))
