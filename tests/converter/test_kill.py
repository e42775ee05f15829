"""Builds on Ray: the same bytes for any number of workers, and after every kind of kill."""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.trees import Tree
from refit_shard.shards_spec.names import LOCK
from refit_shard.shards_spec.verify import verify
from tests.converter.kills import PHASES, Seen, kill_at, kill_process
from tests.converter.many import Many, assert_undisturbed, make_many, started
from tests.small import (
    Own,
    encoded,
    error_line,
    hashes,
    index_rows,
    own,
    picture,
    quarantine,
    refit,
    refit_process,
)

# About as many as a build of the small set has.
STEPS = 60


@pytest.fixture(scope="module")
def many(coco_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Many:
    """600 rows in 60 shards."""
    return make_many(coco_tree, tmp_path_factory.mktemp("many"), frames=120, people=5)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(many: Many, out: Path, workers: int) -> None:
    result = refit_process(*many.args(out, workers))
    assert result.code == 0, result.err
    assert_undisturbed(many, out)


def test_a_killed_driver_leaves_nothing_that_looks_finished_and_the_command_goes_on(
    many: Many, out: Path
) -> None:
    with started(many, out, workers=2) as running:
        running.wait_for_shards(3)
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.result().code == -signal.SIGKILL
        assert not running.finished()
    half = refit("verify", out / "many")
    assert half.code == 1
    assert "BROKEN" in half.out
    assert "its build is not finished" in half.out
    again = refit_process(*many.args(out, 2))
    assert again.code == 0, again.err
    assert_undisturbed(many, out)


def test_a_driver_without_ray_killed_again_and_again_ends_with_the_same_bytes(
    many: Many, out: Path
) -> None:
    for shards in (1, 15, 30):
        with started(many, out, workers=0) as running:
            running.wait_for_shards(shards)
            os.kill(running.process.pid, signal.SIGKILL)
            assert running.result().code == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (out / "many").glob("*.arrow")}
    assert len(before) >= 30
    assert refit(*many.args(out, 0)).code == 0
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())
    assert_undisturbed(many, out)


@pytest.mark.slow  # tests of the cluster kill a node and a worker
def test_a_killed_worker_s_shard_is_built_by_another(many: Many, out: Path) -> None:
    with started(many, out, workers=2) as running:
        running.wait_for_shards(2)
        for _ in range(2):
            os.kill(running.a_worker(), signal.SIGKILL)
        result = running.result()
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert_undisturbed(many, out)


def test_a_worker_that_cannot_write_ends_the_build_with_its_one_line(many: Many, out: Path) -> None:
    in_the_way = out / "many" / "many-000004.tar"
    in_the_way.mkdir(parents=True)
    lines = set()
    for build in (refit, refit_process):
        result = build(*many.args(out, 0 if build is refit else 1))
        assert result.code == 1
        lines.add(error_line(result))
        assert not (out / "many" / "manifest.json").exists()
    (line,) = lines
    assert f"{in_the_way}: " in line
    in_the_way.rmdir()
    assert refit(*many.args(out, 0)).code == 0
    assert_undisturbed(many, out)


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_stops_says_how_to_go_on_and_goes_on(many: Many, out: Path, workers: int) -> None:
    with started(many, out, workers=workers) as running:
        running.wait_for_shards(3)
        os.killpg(running.process.pid, signal.SIGINT)  # a terminal signals the whole group
        result = running.result()
    assert result.code == 130
    assert "run the same command again to continue" in result.err
    assert "Traceback" not in result.err
    assert not (out / "many" / "manifest.json").exists()
    assert refit(*many.args(out, 0)).code == 0
    assert_undisturbed(many, out)


# ------------------------------------------------------------------------- kills at every step


@dataclass(frozen=True)
class Case:
    """A folder in which a build begins: what ``stands``, and what is there when it is over."""

    name: str
    tree: Own
    args: list[object]
    stands: Path
    wanted: dict[str, str]

    def check(self) -> None:
        """What is published at any moment is whole."""
        if (self.tree.out / "manifest.json").exists() and self.name != "mend":
            assert verify(str(self.tree.out)) == []

    def begin(self) -> None:
        """Make the folder what it was."""
        shutil.rmtree(self.tree.out, ignore_errors=True)
        shutil.copytree(self.stands, self.tree.out)


def case(folder: Path, name: str) -> Case:
    """A build of four shards, one of whose frames is missing.

    It is ``fresh``, an ``overwrite`` of a set of the same plan, to ``replace`` one of another plan,
    or to ``mend`` two damaged shards.
    """
    folder.mkdir(exist_ok=True)
    tree = own(folder, rows=8)
    (tree.root / "a/003.jpg").unlink()
    how = ["--samples-per-shard", 2, "--max-bad", 0.5]
    stands = folder / "stands"
    stands.mkdir()
    if name != "fresh":
        other = ["--quality", 70] if name == "replace" else []
        assert refit(*tree.command(*how, *other)).code == 0
        shutil.copytree(tree.out, stands, dirs_exist_ok=True)
    if name == "mend":
        (stands / "own-000001.tar").write_bytes(b"damaged")
        (stands / "own-000002.arrow").unlink()
    if name == "overwrite":
        tree.put("a/000.jpg", encoded(".jpg", picture(77)))
    overwrite = ["--overwrite"] if name in ("overwrite", "replace") else []
    args = tree.command(*how, *overwrite)
    found = Case(name, tree, args, stands, {})
    found.begin()
    assert refit(*args).code == 0
    found.wanted.update(hashes(tree.out))
    return found


CASES = ("fresh", "overwrite", "replace", "mend")


def assert_as_undisturbed(case: Case) -> None:
    """The same files to the byte, and each row once."""
    assert hashes(case.tree.out) == case.wanted
    rows = [row["source_row"] for row in index_rows(case.tree.out)]
    assert sorted([*rows, *quarantine(case.tree.out)]) == list(range(8))


def kill_again_and_again(
    case: Case, chance: random.Random, kills: int, wanted: frozenset[str] = frozenset()
) -> list[str]:
    """Kill a build at random steps and give the command again, until so many kills are done, the
    ``wanted`` phases were met and it has ended; the phase of each kill. Where it ended before, it
    begins again.
    """
    phases: list[str] = []
    case.begin()
    while True:
        step = chance.randint(1, chance.choice((8, STEPS, STEPS)))
        end = kill_at(step, case.tree.out, "own", case.args)
        if end.phase is not None:
            phases.append(end.phase)
            case.check()
            if end.phase != "ending":
                continue
            (case.tree.out / LOCK).unlink()  # all is done but this
        else:
            assert end.said.startswith("0 "), end.said
        assert_as_undisturbed(case)
        if len(phases) >= kills and wanted.issubset(phases):
            return phases
        assert len(phases) < 10 * kills, wanted.difference(phases)
        case.begin()


@pytest.mark.parametrize("name", CASES)
def test_a_build_killed_at_some_of_its_steps_ends_as_undisturbed(tmp_path: Path, name: str) -> None:
    kill_again_and_again(case(tmp_path, name), random.Random(name), kills=6)


def kill_on_ray(many: Many, out: Path, chance: random.Random, kills: int) -> list[str]:
    """Kill workers of Ray, and the command with all of them, at random moments; as above."""
    phases: list[str] = []
    folder = out / "many"
    before = Seen.of(folder)
    while True:
        with started(many, out, workers=2) as running:
            while len(phases) < kills and not running.finished():
                have = running.shards()
                running.wait_for_shards(have + chance.randint(1, 4))
                time.sleep(chance.random() * 0.2)
                if chance.random() < 0.7:
                    kind, pid = "worker", running.a_worker()
                else:
                    kind, pid = "driver", running.process.pid
                with contextlib.suppress(ProcessLookupError):
                    phases.append(f"{kind}: {kill_process(pid, folder, 'many', before)}")
                if kind == "driver":
                    break
            result = running.result()
        if result.code == 0:
            break
        assert result.code == -signal.SIGKILL, result.err
    assert_undisturbed(many, out)
    return phases


@pytest.mark.slow
def test_a_hundred_random_kills_of_command_or_worker_in_every_phase(
    tmp_path: Path, many: Many
) -> None:
    """Rows and bytes are those of an undisturbed build each time a build has ended."""
    chance = random.Random(0)
    fresh = frozenset(PHASES) - {"cleaning up"}
    beside = frozenset(f"overwrite: {phase}" for phase in PHASES if phase != "planning")
    log: list[str] = []
    for name, kills, wanted in (
        ("fresh", 25, fresh),
        ("overwrite", 25, beside),
        ("replace", 15, frozenset[str]()),
        ("mend", 15, frozenset[str]()),
    ):
        made = case(tmp_path / name, name)
        found = kill_again_and_again(made, chance, kills, wanted)
        log += [f"{name}: {phase}" for phase in found]
    for number in range(2):
        found = kill_on_ray(many, tmp_path / f"ray {number}", chance, 10)
        log += [f"on Ray, {phase}" for phase in found]
    for phase, count in sorted(Counter(log).items()):
        sys.stdout.write(f"{count:4} {phase}\n")  # pytest -s shows it
    assert len(log) >= 100
    assert any(phase.startswith("on Ray, worker") for phase in log)
    assert any(phase.startswith("on Ray, driver") for phase in log)
