"""A worker that was thought dead goes on when its build is over: what is published stays."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.build import work
from refit_shard.converter.build.driver import make_task, prepare
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.converter.build.task import Recipe, ShardTask
from refit_shard.shards_spec import writer
from refit_shard.shards_spec.storage import folder as storage
from tests.small import Own, hashes, own, refit

SHARDED = ("--samples-per-shard", 2)
# Whose lines a worker may be stopped at.
STEPS: tuple[CodeType, ...] = tuple(
    function.__code__
    for function in (
        *(work.build_shard, work.find_shard, work.would_now_succeed, writer.write_shard),
        *(storage.Folder.stage.__wrapped__, storage._new_file.__wrapped__),  # type: ignore[attr-defined]
    )
)


class Late:
    """A worker on a thread, which waits at its ``step``-th line until it is let ``go``."""

    def __init__(self, recipe: Recipe, task: ShardTask, step: int) -> None:
        self.came = threading.Event()
        self.go = threading.Event()
        self.over = False
        self._left = step
        self._thread = threading.Thread(target=self._run, args=(recipe, task))
        self._thread.start()

    def _run(self, recipe: Recipe, task: ShardTask) -> None:
        sys.settrace(self._trace)
        try:
            work.build_shard(recipe, task)
        except Exception as error:  # it may find that its files have gone
            self.error = error
        self.over = True
        self.came.set()

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if frame.f_code not in STEPS:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.came.set()
                self.go.wait(60)
        return self._trace

    def end(self) -> None:
        """Let it go on to its end."""
        self.go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextmanager
def stalled(tree: Own, step: int, *, candidates: tuple[str, ...] = ()) -> Iterator[Late]:
    """A worker of the tree's second shard at one of its steps, or over if it has fewer."""
    request = BuildRequest(
        dataset=Dataset(name="own", root_variable="--root"),
        npz=str(tree.npz),
        root=str(tree.root),
        out=str(tree.out),
        options=BuildOptions(samples_per_shard=2),
    )
    prepared = prepare(request)
    task = replace(make_task(prepared, 1), candidates=candidates)
    tree.out.mkdir(parents=True, exist_ok=True)
    late = Late(prepared.recipe, task, step)
    assert late.came.wait(60)
    try:
        yield late
    finally:
        late.end()


def published(folder: Path) -> dict[str, str]:
    """Hashes of all but the files of attempts."""
    return {name: sha256 for name, sha256 in hashes(folder).items() if not name.endswith(".tmp")}


STANDING = ("nothing", "damaged", "to be completed", "to be replaced")


@pytest.mark.parametrize("standing", STANDING)
def test_a_worker_late_at_some_of_its_steps_changes_nothing_that_is_published(
    tmp_path: Path, standing: str
) -> None:
    stall_everywhere(tmp_path, standing, first=1 + STANDING.index(standing), stride=7)


@pytest.mark.slow
@pytest.mark.parametrize("standing", STANDING)
def test_a_worker_late_at_any_of_its_steps_changes_nothing_that_is_published(
    tmp_path: Path, standing: str
) -> None:
    stall_everywhere(tmp_path, standing, first=1, stride=1)


def stall_everywhere(tmp_path: Path, standing: str, first: int, stride: int) -> None:
    """Stop a worker at each ``stride``-th of its steps, and build the set beside it each time."""
    tree = own(tmp_path, rows=4)
    frame = tree.root / "a/001.jpg"
    data = frame.read_bytes()
    step, over = first - stride, False
    while not over:
        step += stride
        for path in tree.out.glob("*"):
            path.unlink()
        candidates: tuple[str, ...] = ()
        if standing != "nothing":
            if standing == "to be completed":
                frame.unlink()
            assert tree.build(*SHARDED).code == 0
            frame.write_bytes(data)
            candidates = ("own-000001",)
        if standing == "damaged":
            (tree.out / "own-000001.tar").write_bytes(b"half")
        with stalled(tree, step, candidates=candidates) as late:
            over = late.over
            options = ("--seed", 3, "--overwrite") if standing == "to be replaced" else ()
            assert tree.build(*SHARDED, *options).code == 0
            before = published(tree.out)
        assert published(tree.out) == before, step
    assert refit("verify", tree.out).code == 0
    assert step > 20
    assert tree.build(*SHARDED, *options).code == 0
    assert not list(tree.out.glob("*.tmp"))


def test_what_a_late_worker_leaves_goes_with_the_next_build(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=8)
    with stalled(tree, 1):
        assert tree.build(*SHARDED).code == 0
        before = hashes(tree.out)
    left = hashes(tree.out).keys() - before.keys()
    assert {Path(name).suffix for name in left} == {".tmp"}
    assert len(left) == 2
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == before
