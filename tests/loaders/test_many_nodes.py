"""Training on many nodes: torchrun and Ray start the ranks; ranks die, hang, and go on as fewer.

:mod:`tests.loaders.rank` is what runs; gloo joins the ranks, on this machine.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.loaders.rank import GLOBAL_BATCH
from tests.loaders.streams import items, stream
from tests.loaders.test_processes import free_port
from tests.small import PROJECT

PATIENCE = 240.0
ENDLESS = 10**9

Run = subprocess.Popen[str]


class Training:
    """A folder that a training run writes to, and the processes that were started for it."""

    def __init__(self, shards: Path, out: Path) -> None:
        self.shards = shards
        self.out = out
        self.started: list[Run] = []

    def start(self, launcher: Sequence[object], *arguments: object, **environment: str) -> Run:
        """Start a launcher, or a rank without one."""
        command = [sys.executable, "-m", *launcher, self.shards.as_uri(), self.out, *arguments]
        run = subprocess.Popen(
            [str(word) for word in command],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(run)
        return run

    def nodes(self, nodes: int, ranks: int, *arguments: object, restarts: int = 0) -> list[Run]:
        """One torchrun a node, each with so many ranks."""
        port = free_port()
        launcher = ["torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", ranks]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
        launcher += ["--local-addr", "127.0.0.1", "--max-restarts", restarts]
        launcher += ["-m", "tests.loaders.rank"]
        return [self.start(launcher, *arguments) for _ in range(nodes)]

    def ranks(self, count: int, *arguments: object) -> list[Run]:
        """Ranks that nothing looks after."""
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [
            self.start(
                ["tests.loaders.rank"], *arguments, RANK=str(rank), WORLD_SIZE=str(count), **place
            )
            for rank in range(count)
        ]

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        return int((self.out / f"{rank}.pid").read_text())

    def position(self) -> int:
        """What the state on disk counts."""
        with contextlib.suppress(FileNotFoundError):
            return int(json.loads((self.out / "state.json").read_text())["position"])
        return 0

    def wait_for(self, position: int) -> None:
        """Until the state on disk has come so far."""
        end = time.monotonic() + PATIENCE
        while self.position() < position:
            for run in self.started:
                assert run.poll() is None, run.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)

    def steps(self) -> dict[int, list[list[str]]]:
        """Each rank's items of every step up to the state's position, by where the step ends.

        A step that was made again after a restart has the same items.
        """
        found: dict[int, dict[int, list[str]]] = {}
        for path in sorted(self.out.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                position, world_size, step, named = json.loads(line)
                assert len(step) == GLOBAL_BATCH // world_size
                assert len({tuple(name) for name in named}) == len(named)
                assert found.setdefault(position, {}).setdefault(int(path.stem), step) == step
        last = self.position()
        return {end: list(found[end].values()) for end in sorted(found) if end <= last}

    def check(self) -> None:
        """The ranks' steps together are the stream of one process, each sample once."""
        steps = self.steps()
        loader = stream(self.shards, batch_size=GLOBAL_BATCH)
        expected: list[list[str]] = []
        while len(expected) < len(steps):
            expected += [items(batch) for batch in loader]
        together = [[item for rank in step for item in rank] for step in steps.values()]
        assert together == expected[: len(steps)]
        assert list(steps) == list(range(GLOBAL_BATCH, self.position() + 1, GLOBAL_BATCH))

    def left(self) -> list[int]:
        """What of the run is there: torchrun, ranks, loaders' workers; all name its folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.out).encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def gone(self) -> None:
        """Wait until nothing of the run is left."""
        end = time.monotonic() + PATIENCE
        while left := self.left():
            assert time.monotonic() < end, left
            time.sleep(0.05)

    def kill(self) -> None:
        """End all of it."""
        while left := self.left():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for run in self.started:
            run.communicate()


@pytest.fixture
def training(shards: Path, tmp_path: Path) -> Iterator[Training]:
    """Whatever of it is left at the end is killed."""
    made = Training(shards, tmp_path)
    try:
        yield made
    finally:
        made.kill()


def errors_of(runs: Sequence[Run], code: int) -> str:
    """What runs said that end, all with this code."""
    said = []
    for run in runs:
        said.append(run.communicate(timeout=PATIENCE)[1])
        assert run.returncode == code, said[-1]
    return "".join(said)


def test_four_ranks_on_two_nodes_stop_and_two_go_on(training: Training) -> None:
    """Over an epoch's end, and the stop is in the middle of one; shards are read from a URL."""
    epoch = len(stream(training.shards, batch_size=GLOBAL_BATCH)) * GLOBAL_BATCH
    stop = epoch + 2 * GLOBAL_BATCH
    errors_of(training.nodes(2, 2, stop), 0)
    assert training.position() == stop
    errors_of(training.nodes(1, 2, 2 * epoch + GLOBAL_BATCH), 0)
    assert training.position() == 2 * epoch + GLOBAL_BATCH
    ranks = [len(step) for step in training.steps().values()]
    assert ranks == [4] * (stop // GLOBAL_BATCH) + [2] * ((epoch - GLOBAL_BATCH) // GLOBAL_BATCH)
    training.check()


def test_a_killed_rank_ends_the_run_on_every_node(training: Training) -> None:
    """Its own node's torchrun says which; on the other node gloo's exchange fails."""
    runs = training.nodes(2, 2, ENDLESS)
    training.wait_for(5 * GLOBAL_BATCH)
    os.kill(training.pid(3), signal.SIGKILL)
    errors = errors_of(runs, 1)
    assert f"Signal 9 (SIGKILL) received by PID {training.pid(3)}" in errors
    assert "Connection closed by peer" in errors
    training.gone()
    assert training.position() >= 5 * GLOBAL_BATCH
    training.check()


@pytest.mark.slow  # gloo may need several starts, of ten seconds and more each
def test_torchrun_starts_all_ranks_again(training: Training) -> None:
    """From the state, and the stream has neither a gap nor a repeat."""
    end = 40 * GLOBAL_BATCH
    # A new rank may find a dead one's address first and wait there for the exchange's 10 s;
    # torchrun then starts all once more, maybe several times in a row.
    runs = training.nodes(1, 2, end, 10, restarts=20)
    training.wait_for(5 * GLOBAL_BATCH)
    killed = training.pid(1)
    os.kill(killed, signal.SIGKILL)
    errors_of(runs, 0)
    assert training.pid(1) != killed
    assert training.position() == end
    training.check()


def test_a_rank_that_hangs_is_noticed_at_the_exchange_s_timeout(training: Training) -> None:
    """Where no launcher looks after the ranks, and the connection stands."""
    runs = training.ranks(2, ENDLESS, 3)
    training.wait_for(3 * GLOBAL_BATCH)
    os.kill(training.pid(1), signal.SIGSTOP)
    assert "Timed out waiting 3000ms" in errors_of(runs[:1], 1)
    training.check()


RAY = """
import json, sys
import ray, torch.distributed as dist
from tests.loaders.rank import ranks_loader
from tests.loaders.streams import items

shards, address = sys.argv[1:]

@ray.remote(num_cpus=1)
class Rank:
    def __init__(self, rank, world_size):
        dist.init_process_group("gloo", f"tcp://{address}", rank=rank, world_size=world_size)
        self.loader = ranks_loader(shards)

    def epoch(self):
        return [items(batch) for batch in self.loader]

    def state(self):
        return self.loader.state_dict()

ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ranks = [Rank.remote(rank, 2) for rank in range(2)]
epochs = [ray.get([rank.epoch.remote() for rank in ranks]) for _ in range(2)]
print(json.dumps([epochs, ray.get([rank.state.remote() for rank in ranks])]))
"""


@pytest.mark.slow  # a cluster of its own
def test_ray_s_actors_are_ranks(shards: Path) -> None:
    """Two actors that torch.distributed joins read the stream of one process."""
    done = subprocess.run(
        [sys.executable, "-c", RAY, str(shards), f"127.0.0.1:{free_port()}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    epochs, (first, second) = json.loads(done.stdout)
    loader = stream(shards)
    for ranks in epochs:
        assert [one + two for one, two in zip(*ranks, strict=True)] == [
            items(batch) for batch in loader
        ]
    assert first == second == loader.state_dict()
