"""Several processes: ranks of torch.distributed, and a run that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loaders.streams import all_items, items, stream

ROOT = Path(__file__).resolve().parents[2]

RANK = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
from tests.loaders.streams import items, names, stream

shards, out = Path(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
os.environ["RANK"], os.environ["WORLD_SIZE"] = "0", "1"  # torch.distributed goes before it
loader = stream(shards, batch_size=12 // world_size, rank=None, world_size=None, num_workers=2)
found = []
for epoch in range(2):
    for batch in loader:
        found.append([items(batch), names(batch)])
        dist.barrier()
        state = loader.state_dict()
content = {"rank": rank, "world_size": world_size, "batches": found, "state": state}
(out / f"{rank}.json").write_text(json.dumps(content))
dist.destroy_process_group()
"""

RUN = """
import json, os, sys
from pathlib import Path
from tests.loaders.streams import items, stream

shards, out = Path(sys.argv[1]), Path(sys.argv[2])
loader = stream(shards, num_workers=3, prefetch=8, epoch_samples=1200, res=16)
with (out / "items").open("a") as log:
    for batch in loader:
        log.write("".join(f"{item}\\n" for item in items(batch)))
        log.flush()
        temporary = out / "state.tmp"
        temporary.write_text(json.dumps(loader.state_dict()))
        os.replace(temporary, out / "state.json")
        print(loader.state_dict()["position"], flush=True)
"""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(shards: Path, out: Path, world_size: int) -> None:
    """The script above as so many gloo processes on this machine."""
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(shards), str(out)],
            cwd=ROOT,
            env={**common, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors


def test_two_gloo_processes_share_the_stream(shards: Path, tmp_path: Path) -> None:
    """Ranks are taken from torch.distributed, are disjoint, and make up the one-process stream;
    three ranks go on from their state.
    """
    run_ranks(shards, tmp_path, 2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [one["rank"] for one in found] == [0, 1]
    assert all(one["world_size"] == 2 for one in found)
    one_process = stream(shards)
    expected = [items(batch) for _ in range(2) for batch in one_process]
    steps = [
        [first[0] + second[0], first[1], second[1]]
        for first, second in zip(found[0]["batches"], found[1]["batches"], strict=True)
    ]
    assert [step[0] for step in steps] == expected
    for _, first, second in steps:
        assert not {*map(tuple, first)} & {*map(tuple, second)}
    assert found[0]["state"] == found[1]["state"]
    three = [stream(shards, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    for loader in three:
        loader.load_state_dict(found[0]["state"])
    following = [all_items(step) for step in zip(*three, strict=True)]
    assert following == [items(batch) for batch in one_process]


def test_a_killed_run_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    """SIGKILL in mid-epoch, twice: all runs' items together are the stream without a kill."""
    expected = all_items(stream(shards, epoch_samples=1200, res=16))
    (tmp_path / "items").touch()
    resume = RUN.replace(
        "with (out",
        'loader.load_state_dict(json.loads((out / "state.json").read_text()))\nwith (out',
    )
    kept: list[str] = []
    for script, steps in ((RUN, 7), (resume, 5)):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(shards), str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(steps):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        state = json.loads((tmp_path / "state.json").read_text())
        assert len(kept) < state["position"] < 1200, "killed in the middle"
        # A batch may have been logged whose state was not: what the state counts is what holds.
        kept = (tmp_path / "items").read_text().splitlines()[: state["position"]]
        assert len(kept) == state["position"]
        (tmp_path / "items").write_text("".join(f"{item}\n" for item in kept))
    loader = stream(shards, num_workers=2, epoch_samples=1200, res=16)
    loader.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
    assert kept + all_items(loader) == expected


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_from_the_environment(
    shards: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    """Without torch.distributed, torchrun's variables say the rank; options go before them."""
    found = []
    for rank in range(world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        loader = stream(shards, batch_size=12 // world_size, rank=None, world_size=None)
        found.append(list(loader))
    assert [all_items(step) for step in zip(*found, strict=True)] == [
        items(batch) for batch in stream(shards)
    ]
