"""The build of :mod:`benchmarks.soak`, which is killed repeatedly."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.build_cases import repeated
from benchmarks.harness import descendants
from benchmarks.trees import Tree, make_config
from refit_shard.shards_spec.names import MANIFEST

_NAME = "bedlam"
_CHUNK = 8 << 20


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too."""
    found = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(_CHUNK):
                digest.update(part)
        found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def _command(
    tree: Tree, folder: Path, passes: int, *, workers: int, samples_per_shard: int
) -> list[str]:
    """The command of a build of a tree repeated ``passes`` times, from ``folder`` to
    ``folder/shards``.
    """
    many = repeated(tree, folder / "dataset_extras", passes)
    config = make_config(folder, [many])
    where = ["--dataset", _NAME, "--data-config", config, "--out", folder / "shards"]
    how = ["--workers", workers, "--samples-per-shard", samples_per_shard, "--json"]
    return [str(word) for word in (sys.executable, "-m", "refit_shard", "build", *where, *how)]


def _run(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _passes(tree: Tree, scratch: Path, gigabytes: float) -> int:
    """How often to repeat the tree so that its shards have the wanted size; builds it once."""
    _run(_command(tree, scratch, 1, workers=0, samples_per_shard=2048))
    size = sum(path.stat().st_size for path in (scratch / "shards" / _NAME).iterdir())
    shutil.rmtree(scratch)
    return max(1, round(gigabytes * 1e9 / size))


class _Killed:
    """A build whose command is run again until ``kills`` kills are done and it is finished."""

    def __init__(self, command: list[str], out: Path, shards: int, seed: int) -> None:
        self.done: list[str] = []
        self._command = command
        self._out = out
        self._shards = shards
        self._chance = random.Random(seed)
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def _standing(self) -> int:
        return len(list(self._out.glob(f"{_NAME}/{_NAME}-*.arrow")))

    def _worker(self) -> int | None:
        below = descendants(self._process.pid).items()
        workers = [pid for pid, line in below if line.startswith("ray::build_shard")]
        return self._chance.choice(workers) if workers else None

    def _wait_for(self, standing: int) -> float:
        """Wait until this many shards are finished; returns the seconds that the last one took."""
        before, moments = self._standing(), [0.0, 0.0]
        while self._process.poll() is None and before < standing:
            time.sleep(0.01)
            if (now := self._standing()) > before:
                before, moments = now, [moments[-1], time.perf_counter()]
        return moments[1] - moments[0] if moments[0] else 0.0

    def kill_at(self, standing: int) -> None:
        """Kill the command or a worker at a random moment after this many shards are finished."""
        time.sleep(self._chance.random() * self._wait_for(standing))
        what = self._chance.choice(("command", "worker"))
        while self._process.poll() is None:
            pid = self._process.pid if what == "command" else self._worker()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.done.append(what)
                break
            time.sleep(0.01)
        if what == "command" and self._process.wait() == -signal.SIGKILL:
            self._process = self._start()

    def run(self, kills: int) -> int:
        """Run with all kills, evenly spread over the shards; returns the last exit code."""
        for number in range(kills):
            self.kill_at((number + 1) * self._shards // (kills + 1))
        return self._process.wait()


def soak_build(
    tree: Tree,
    scratch: Path,
    *,
    gigabytes: float,
    kills: int,
    workers: int,
    samples_per_shard: int,
    seed: int,
) -> dict[str, Any]:
    """Build without and with kills; returns figures, and failures as lines of ``wrong``."""
    passes = _passes(tree, scratch / "once", gigabytes)
    folder = scratch / "many"
    out = folder / "shards"
    command = _command(tree, folder, passes, workers=workers, samples_per_shard=samples_per_shard)
    quiet_seconds = _run(command)
    quiet = _hashes(out)
    size = sum(path.stat().st_size for path in (out / _NAME).iterdir())
    shutil.rmtree(out)
    shards = len([name for name in quiet if name.endswith(".tar")])
    begin = time.perf_counter()
    killed = _Killed(command, out, shards, seed)
    code = killed.run(kills)
    seconds = time.perf_counter() - begin
    found = _hashes(out)
    wrong = [f"the last command ended with {code}"] if code else []
    if len(killed.done) < kills:
        wrong.append(f"the build was over after {len(killed.done)} of {kills} kills")
    different = [name for name in quiet.keys() | found.keys() if quiet.get(name) != found.get(name)]
    if different or f"{_NAME}/{MANIFEST}" not in found:
        wrong.append(f"{len(different)} files differ from the quiet build: {sorted(different)[:3]}")
    return {
        "rows": tree.rows * passes,
        "shards": shards,
        "bytes": size,
        "files": len(quiet),
        "killed": killed.done,
        "quiet_seconds": round(quiet_seconds, 1),
        "seconds": round(seconds, 1),
        "wrong": wrong,
    }
