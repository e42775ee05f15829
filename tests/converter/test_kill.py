"""Builds on Ray: the same bytes for any number of workers, and after every kind of kill."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.trees import Tree
from tests.converter.many import Many, assert_undisturbed, make_many, started
from tests.small import error_line, refit, refit_process


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
    assert "give the same command again to go on" in result.err
    assert "Traceback" not in result.err
    assert not (out / "many" / "manifest.json").exists()
    assert refit(*many.args(out, 0)).code == 0
    assert_undisturbed(many, out)
