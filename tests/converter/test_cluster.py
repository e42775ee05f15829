"""Builds on a Ray cluster of several nodes, through what happens to clusters: the same bytes."""

import os
import pickle
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import utils as ray_utils

from benchmarks.trees import Tree
from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.build.driver import make_task, prepare
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.converter.build.work import build_shard
from tests.converter.clusters import Nodes, cluster
from tests.converter.many import Many, Running, assert_undisturbed, make_many, started
from tests.small import PROJECT, error_line, refit, refit_command, refit_process

# Ray leaves the logs of the nodes that it starts to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file <_io.TextIOWrapper:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning"),
]


@pytest.fixture(scope="module")
def many(coco_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Many:
    """600 rows in 60 shards."""
    return make_many(coco_tree, tmp_path_factory.mktemp("many"), frames=120, people=5)


@pytest.fixture(scope="module")
def client_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def nodes(client_port: int) -> Iterator[Nodes]:
    """Two nodes, for all tests; who kills one adds another. A dead one is missed within seconds."""
    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    with cluster(2, ray_client_server_port=client_port, _system_config=quick) as running:
        yield running


def read_terminal(master: int) -> str:
    """What was written to a pseudo-terminal until all its writers left."""
    chunks = []
    try:
        while chunk := os.read(master, 4096):
            chunks.append(chunk)
    except OSError:  # how Linux says that no writer is left
        pass
    return b"".join(chunks).decode()


def test_any_folder_will_do_and_a_terminal_shows_progress(
    many: Many, nodes: Nodes, tmp_path: Path
) -> None:
    """The nodes' current folder is not the driver's: relative places must not lead elsewhere."""
    args = [str(arg) for arg in many.args(Path("shards"), 2)]
    args[args.index("--root") + 1] = os.path.relpath(many.folder / "root", tmp_path)
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        refit_command(*args, "--address", nodes.address),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    ) as process:
        os.close(slave)
        shown = read_terminal(master)
        os.close(master)
        assert process.wait() == 0, shown
    assert f"/{many.rows}" in shown
    assert "/s" in shown
    assert_undisturbed(many, tmp_path / "shards")


def test_a_driver_outside_the_cluster_gives_the_same_bytes(
    many: Many, nodes: Nodes, client_port: int, out: Path
) -> None:
    assert nodes.all()
    command = [*many.args(out, 2), "--address", f"ray://127.0.0.1:{client_port}"]
    result = refit_process(*command)
    if "Starting Ray client server failed" in result.err:  # Ray gives its own server 30 s to start
        result = refit_process(*command)
    assert result.code == 0, result.err
    assert_undisturbed(many, out)


def test_a_killed_node_s_shards_are_built_by_the_others(
    many: Many, nodes: Nodes, out: Path
) -> None:
    with started(many, out, 2, "--address", nodes.address) as running:
        running.wait_for_shards(3)
        node, _ = nodes.wait_for_builder(running)
        nodes.kill(node)
        assert not running.finished()
        result = running.result()
        nodes.add()
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert_undisturbed(many, out)


def test_a_killed_driver_s_build_is_gone_on_with_at_once(
    many: Many, nodes: Nodes, out: Path
) -> None:
    """The second driver starts while the cluster may still run what the first one asked for."""
    with started(many, out, 2, "--address", nodes.address) as running:
        running.wait_for_shards(3)
        nodes.wait_for_builder(running)
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.result().code == -signal.SIGKILL
        assert not running.finished()
    again = refit_process(*many.args(out, 2), "--address", nodes.address)
    assert again.code == 0, again.err
    assert_undisturbed(many, out)


def stopped_in_a_task(nodes: Nodes, running: Running) -> int:
    """A worker that was stopped while its time limit ran: not between two tasks, where Ray already
    calls it by the next one.
    """
    while True:
        _, pid = nodes.wait_for_builder(running)
        os.kill(pid, signal.SIGSTOP)
        about = Path(f"/proc/{pid}")
        while ") T " not in (about / "stat").read_text():  # it stops a moment after it was told to
            time.sleep(0.001)
        if (about / "timers").read_text():
            return pid
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_hangs_is_killed_and_its_shard_built_by_another(
    many: Many, nodes: Nodes, out: Path
) -> None:
    """A stopped process stands for every hang: it hears nothing but SIGKILL."""
    limit = ["--address", nodes.address, "--shard-timeout", 10]
    with started(many, out, 2, *limit) as running:
        running.wait_for_shards(3)
        pid = stopped_in_a_task(nodes, running)
        try:
            result = running.result()
        finally:
            stopped = Path(f"/proc/{pid}/cmdline").exists()
            if stopped:
                os.kill(pid, signal.SIGKILL)
    assert not stopped
    assert result.code == 0, result.err
    assert_undisturbed(many, out)


@pytest.mark.slow  # a worker that hangs is killed by another test
def test_a_shard_that_never_fits_its_time_fails_in_one_line(
    many: Many, nodes: Nodes, out: Path
) -> None:
    tight = ["--address", nodes.address, "--shard-timeout", 0.001]
    one = ["--samples-per-shard", 600]
    result = refit_process(*many.args(out, 2)[:-2], *one, *tight)
    assert result.code == 1
    line = error_line(result)
    assert "1 of 1 shards failed" in line
    assert "--shard-timeout" in line
    assert not (out / "many" / "manifest.json").exists()


@pytest.mark.parametrize("outside", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_scheduler_s_notice_end_the_build_and_its_workers(
    many: Many, nodes: Nodes, client_port: int, out: Path, outside: bool, number: signal.Signals
) -> None:
    address = f"ray://127.0.0.1:{client_port}" if outside else nodes.address
    with started(many, out, 2, "--address", address) as running:
        running.wait_for_shards(3)
        os.killpg(running.process.pid, number)
        result = running.result()
    assert result.code == 130
    assert "run the same command again to continue" in result.err
    assert "Traceback" not in result.err
    nodes.wait_until_idle()
    assert not running.finished()
    assert refit(*many.args(out, 0)).code == 0
    assert_undisturbed(many, out)


def test_a_worker_killed_for_memory_is_run_again_when_there_is_some(many: Many, out: Path) -> None:
    """Ray's own monitor kills it, for memory that another program, this one, really holds."""
    measure: Any = ray_utils  # untyped
    total = measure.get_system_memory()
    settings = {
        "memory_usage_threshold": measure.get_used_memory() / total + 0.1,
        "memory_monitor_refresh_ms": 50,
        "task_oom_retry_delay_base_ms": 100,
    }
    with (
        cluster(1, _system_config=settings) as small,
        started(many, out, 1, "--address", small.address) as running,
    ):
        running.wait_for_shards(3)
        _, pid = small.wait_for_builder(running)
        os.kill(pid, signal.SIGSTOP)  # so that the build cannot end before the memory does
        held: list[bytes] = []
        while Path(f"/proc/{pid}/cmdline").exists():
            assert len(held) < 100
            held.append(os.urandom(4096) * (total // 200 // 4096))
        assert not running.finished()
        held.clear()
        result = running.result()
        killed = [line for line in small.log().splitlines() if f"pid={pid}," in line]
    assert result.code == 0, result.err
    assert any("Selected to kill" in line for line in killed)
    assert_undisturbed(many, out)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:1", "ray://127.0.0.1", "nope"])
def test_an_address_where_no_cluster_is_ends_at_once(
    many: Many, out: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Ray is not even asked, since it would try for minutes."""
    monkeypatch.delattr(ray, "init")
    result = refit(*many.args(out, 2), "--address", address)
    assert result.code == 2
    line = error_line(result)
    assert f"--address {address}: cannot use a Ray cluster there: " in line
    assert not out.exists()


@pytest.mark.parametrize("left", [False, True])
def test_auto_without_a_cluster_ends_at_once(
    many: Many, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    """Nothing runs on this machine; a killed cluster may have left its address behind."""
    monkeypatch.delattr(ray, "init")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", frozenset)
    if left:
        (tmp_path / "ray_current_cluster").write_text("127.0.0.1:1")
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    result = refit(*many.args(out, 2), "--address", "auto")
    assert result.code == 2
    line = error_line(result)
    assert "--address auto: cannot use a Ray cluster there: " in line
    assert ("Connection refused" if left else "Could not find any running Ray") in line


def test_what_travels_is_labels_and_not_pixels(many: Many, out: Path) -> None:
    """A worker gets a shard's labels; the driver gets hashes, counts and numbers of rows."""
    prepared = prepare(
        BuildRequest(
            dataset=Dataset(name="many", root_variable="--root"),
            npz=str(many.folder / "many.npz"),
            root=str(many.folder / "root"),
            out=str(out / "many"),
            options=BuildOptions(samples_per_shard=300),
        )
    )
    (out / "many").mkdir(parents=True)
    for index in range(2):
        task = make_task(prepared, index)
        result = build_shard(prepared.recipe, task)
        assert len(pickle.dumps(task)) < 3000 * len(task.source_rows)
        numbers = 8 * len(task.source_rows)
        assert len(pickle.dumps(result)) < 2000 + numbers + 500 * len(result.quarantined)
        assert result.entry.tar_bytes > 10_000 * len(task.source_rows)
