"""A fault at each call of a build's I/O in turn: the same bytes or a failed command, and the same
bytes once the command is given again without the fault.
"""

import errno
import hashlib
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from refit_shard.shards_spec.errors import RefitShardError
from refit_shard.shards_spec.verify import verify
from tests.faults.conftest import Machine, Outcome
from tests.faults.errors import ERRORS, OF_THE_FILE, ONLY_ONCE, SHORT, UNKNOWN
from tests.small import Own, own

SHARDED = ("--samples-per-shard", 4, "--box-px", 64, "--max-bad", 0.9)
EVER = -1
SCENES = ("new", "half", "finished", "overwrite")
GENERATION = re.compile(r"-g\d+(?=[-.])")


@dataclass(frozen=True)
class Case:
    """The ``number``-th call of this name fails; ``times``: once, or from then on for ever."""

    call: str
    number: int
    path: str
    error: int
    times: int

    @property
    def of_a_frame(self) -> bool:
        """Whether it says of a frame itself that it is not there or may not be read."""
        met = self.path.startswith("/frames/") or self.times == EVER
        return self.error in OF_THE_FILE and met

    def __str__(self) -> str:
        named = {SHORT: "half of it", UNKNOWN: "types unknown"}
        error = named.get(self.error) or errno.errorcode[self.error]
        often = "for ever" if self.times == EVER else "once"
        return f"{self.call} {self.number} ({self.path}) {error} {often}"


@dataclass(frozen=True)
class Scene:
    """A build that begins with ``begin``'s files and ends with ``end``, see :func:`contents`."""

    name: str
    tree: Own
    begin: Path
    end: dict[str, str]
    calls: tuple[str, ...]

    def start(self, number: int) -> Path:
        """A folder for one run."""
        out = self.tree.folder / f"out-{number}"
        shutil.copytree(self.begin, out / "own", copy_function=shutil.copy2)
        return out

    def cases(self) -> list[Case]:
        """Every call with every errno, once and for ever."""
        found, seen = [], Counter[str]()
        for line in self.calls:
            call, _, path = line.partition(" ")
            seen[call] += 1
            for error in ERRORS[call]:
                for times in (1,) if error in ONLY_ONCE else (1, EVER):
                    found.append(Case(call, seen[call], path, error, times))
        return found

    def command(self, out: Path) -> list[object]:
        """The build, in the process itself."""
        tree, more = self.tree, ["--overwrite"] if self.name == "overwrite" else []
        what = ["build", "--npz", tree.npz, "--root", tree.root, "--name", "own", *more]
        return [*what, "--out", out, "--workers", 0, *SHARDED]


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, whatever the generation; of each name there must be one."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        name = GENERATION.sub("", path.name)
        assert name not in found, f"two generations of {name}"
        found[name] = content(path)
    return found


def content(path: Path) -> str:
    """SHA-256 of a file's bytes, but for a manifest's generation."""
    data = path.read_bytes()
    if path.name == "manifest.json":
        text = re.sub(r'("generation": )\d+', r"\1 0", data.decode())
        data = GENERATION.sub("", text).encode()
    return hashlib.sha256(data).hexdigest()


def stop_half_way(folder: Path) -> None:
    """As a killed build leaves it: one shard whole, one without its index, one begun."""
    for name in ("manifest.json", "quarantine.feather", "own-000001.arrow"):
        (folder / name).unlink()
    (folder / ".own-000001.arrow.0123abcd.tmp").write_bytes(bytes(100))


@pytest.fixture(scope="module", params=SCENES)
def scene(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """One of the states that a build finds."""
    tree = own(tmp_path_factory.mktemp(request.param), rows=8)
    begin = tree.folder / "begin"
    begin.mkdir()
    assert tree.build(*SHARDED).code == 0
    scene = Scene(request.param, tree, begin, contents(tree.out), ())
    if request.param != "new":
        shutil.copytree(tree.out, begin, dirs_exist_ok=True)
    if request.param == "half":
        stop_half_way(begin)
    out = scene.start(0)
    traced = machine.run(tree.folder, *scene.command(out), traced=True)
    assert traced.code == 0, traced.said
    assert contents(out / "own") == scene.end
    return Scene(request.param, tree, begin, scene.end, tuple(traced.calls))


def without(fault: str) -> str:
    """How a file of an attempt is called, whatever the attempt."""
    return re.sub(r"\.[0-9a-f]{8,}\.tmp", ".#.tmp", fault)


def whole_or_nothing(scene: Scene, folder: Path, case: Case) -> Iterator[str]:
    """What is wrong with the files that stand published; a quarantine may hold what failed."""
    found = {GENERATION.sub("", path.name) for path in folder.glob("*")}
    for path in folder.glob("[!.]*"):
        if content(path) != scene.end.get(GENERATION.sub("", path.name)) and not case.of_a_frame:
            yield f"{path.name} is another than undisturbed"
    if "manifest.json" in found and set(scene.end) - found:
        yield f"a manifest stands without {set(scene.end) - found}"
    if scene.name in ("finished", "overwrite") and "manifest.json" not in found:
        yield "what was published is gone"


def accounted(folder: Path) -> list[str]:
    """What verify finds wrong with a published set; each row must be in one place."""
    try:
        return verify(str(folder))
    except RefitShardError as error:
        return [str(error)]


def told(done: Outcome) -> Iterator[str]:
    """Whether a failed command says so in one line."""
    lines = [line for line in done.said.splitlines() if line.startswith("refit-shard:")]
    if "Traceback" in done.said:
        yield f"a traceback: {done.said.splitlines()[-1]}"
    elif len(lines) != 1 or done.code not in (1, 2):
        yield f"exit {done.code} with {lines}"


def faults_of(scene: Scene, machine: Machine, case: Case, number: int) -> list[str]:
    """Run a case; what went wrong."""
    out = scene.start(number)
    try:
        fault = (case.call, case.number, case.times, case.error)
        done = machine.run(scene.tree.folder, *scene.command(out), fault=fault)
        found = [*whole_or_nothing(scene, out / "own", case)]
        if done.failed < 1:
            found.append(f"no call failed, exit {done.code}")
        if done.code != 0:
            found += told(done)
        elif not (out / "own" / "manifest.json").exists():
            found.append("exit 0 without a manifest")
        else:
            found += accounted(out / "own")
        again = machine.run(scene.tree.folder, *scene.command(out))
        if again.code != 0:
            found.append(f"again: exit {again.code}: {again.said}")
        elif contents(out / "own") != scene.end:
            found.append("again: other bytes or files")
        return [f"{case}: {one}" for one in found]
    finally:
        shutil.rmtree(out)


def search(scene: Scene, machine: Machine, cases: list[Case]) -> None:
    """Run cases; all that went wrong is told."""
    wrong = [
        line
        for number, case in enumerate(cases, start=1)
        for line in faults_of(scene, machine, case, number)
    ]
    failed = {line.split(": ")[0] for line in wrong}
    assert not wrong, f"{len(failed)} of {len(cases)} cases:\n" + "\n".join(map(without, wrong))


def test_a_fault_for_each_call_and_errno(scene: Scene, machine: Machine) -> None:
    """One of each pair, at a call that is drawn; a share of the pairs for each scene."""
    cases = scene.cases()
    random.Random(0).shuffle(cases)
    pairs = {(case.call, case.error): case for case in cases}
    sample = [pairs[pair] for pair in sorted(pairs)[SCENES.index(scene.name) :: len(SCENES)]]
    assert {case.call for case in sample} >= {"open", "read", "close", "stat", "opendir", "flock"}
    search(scene, machine, sample)


@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(ERRORS))
def test_every_fault_at_every_call(scene: Scene, machine: Machine, call: str) -> None:
    search(scene, machine, [case for case in scene.cases() if case.call == call])
