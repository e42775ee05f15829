"""Many small shards cheaply: the frames of a small tree under many names, with shifted boxes."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.trees import Tree
from tests.small import Result, hashes, index_rows, quarantine, refit, refit_command

_PATIENCE = 90.0


@dataclass(frozen=True)
class Many:
    """A dataset of many shards and the hashes of its undisturbed build.

    Frames 7 and 11 cannot be used; ``people`` rows of each are in quarantine.
    """

    folder: Path
    rows: int
    people: int
    shards: int
    undisturbed: dict[str, str]

    def args(self, out: Path, workers: int) -> list[object]:
        """The build's arguments."""
        where = ["--npz", self.folder / "many.npz", "--root", self.folder / "root"]
        how = ["--name", "many", "--out", out, "--workers", workers, "--box-px", 512]
        return ["build", *where, *how, "--samples-per-shard", 10]


def _spoil(root: Path) -> None:
    """Two frames that cannot be used: one is not there, one is cut short."""
    (root / "0007.jpg").unlink()
    data = (root / "0011.jpg").read_bytes()
    (root / "0011.jpg").unlink()  # a hard link: the tree's own file must not change
    (root / "0011.jpg").write_bytes(data[:5000])


def make_many(tree: Tree, folder: Path, frames: int, people: int) -> Many:
    """``frames`` hard links to the tree's frames, ``people`` rows each, built in this process."""
    rng = np.random.default_rng(0)
    with np.load(tree.npz) as data:
        _, first = np.unique(data["imgname"], return_index=True)
        rows = np.repeat(np.resize(first, frames), people)
        names = [f"{frame:04d}.jpg" for frame in range(frames)]
        changed = {key: data[key][rows] for key in data.files}
        sources = data["imgname"][np.resize(first, frames)]
    for name, source in zip(names, sources, strict=True):
        (folder / "root").mkdir(exist_ok=True)
        os.link(tree.root / str(source), folder / "root" / name)
    _spoil(folder / "root")
    changed["imgname"] = np.repeat(np.array(names), people)
    changed["center"] = changed["center"] + rng.uniform(-20, 20, (len(rows), 2))
    np.savez(folder / "many.npz", **changed)
    many = Many(folder, len(rows), people, -(-len(rows) // 10), {})
    assert refit(*many.args(folder / "undisturbed", 0)).code == 0
    many.undisturbed.update(hashes(folder / "undisturbed" / "many"))
    assert len(many.undisturbed) == 2 * many.shards + 2
    return many


def assert_undisturbed(many: Many, out: Path) -> None:
    """Every file, hidden ones too, is that of an undisturbed build, and no other file is there."""
    found = hashes(out / "many")
    assert found.keys() == many.undisturbed.keys()
    assert found == many.undisturbed
    bad = quarantine(out / "many")
    assert sorted(bad.values()) == ["corrupt"] * many.people + ["missing"] * many.people
    rows = [row["source_row"] for row in index_rows(out / "many")]
    assert sorted(rows + list(bad)) == list(range(many.rows))


def descendants(pid: int) -> dict[int, str]:
    """Processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{child}/cmdline").read_bytes()
                found[child] = line.replace(b"\0", b" ").decode(errors="replace")
            waiting.append(child)
    return found


@dataclass
class Running:
    """A build in a process group of its own."""

    process: "subprocess.Popen[str]"
    out: Path

    def shards(self) -> int:
        """Indexes published so far."""
        return len(list(self.out.glob("many/*.arrow")))

    def finished(self) -> bool:
        """Whether it is too late to disturb it."""
        return (self.out / "many" / "manifest.json").exists()

    def wait_for_shards(self, count: int) -> None:
        """Until that many shards stand; the build must still be going on."""
        end = time.monotonic() + _PATIENCE
        while self.shards() < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)
        assert not self.finished()

    def a_worker(self) -> int:
        """Process id of a Ray worker that is building a shard right now."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and not self.finished():
            for pid, line in descendants(self.process.pid).items():
                if line.startswith("ray::build_shard"):
                    return pid
        raise AssertionError("no worker seen")

    def result(self) -> Result:
        """How it ended."""
        out, err = self.process.communicate(timeout=_PATIENCE)
        return Result(self.process.returncode, out, err)


@contextlib.contextmanager
def started(many: Many, out: Path, workers: int, *more: object) -> Iterator[Running]:
    """Start a build; whatever of it is left at the end is killed."""
    process = subprocess.Popen(
        refit_command(*many.args(out, workers), *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = {process.pid}
    try:
        yield Running(process, out)
        family |= descendants(process.pid).keys()
    finally:
        family |= descendants(process.pid).keys()
        if process.poll() is None:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.communicate()
