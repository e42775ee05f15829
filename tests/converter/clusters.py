"""A Ray cluster of several nodes on this machine, every process of which can be killed."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tests.converter.many import Running, descendants

_PATIENCE = 60.0


class Nodes:
    """A head without cores, which runs no task, and ``nodes`` of one core each."""

    def __init__(self, nodes: int, head: dict[str, Any]) -> None:
        arguments = {"num_cpus": 0, "include_dashboard": False, **head}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=arguments)
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        """For ``--address``."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Start one more node."""
        self._cluster.add_node(num_cpus=1)

    def all(self) -> list[Any]:
        """The nodes that run tasks."""
        return list(self._cluster.worker_nodes)

    def kill(self, node: Any) -> None:
        """The machine is gone: SIGKILL for what runs there; its workers notice when they do."""
        self._cluster.remove_node(node, allow_graceful=False)

    def builders(self, node: Any) -> list[int]:
        """Processes of a node that are building a shard right now."""
        (raylet,) = node.all_processes["raylet"]
        below = descendants(raylet.process.pid).items()
        return [pid for pid, line in below if line.startswith("ray::build_shard")]

    def wait_for_builder(self, running: Running) -> tuple[Any, int]:
        """A node and a process there that is building a shard right now."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and not running.finished():
            for node in self.all():
                for pid in self.builders(node):
                    return node, pid
        raise AssertionError("no builder seen")

    def wait_until_idle(self) -> None:
        """Until no node builds anything."""
        end = time.monotonic() + _PATIENCE
        while any(self.builders(node) for node in self.all()):
            assert time.monotonic() < end
            time.sleep(0.05)

    def log(self) -> str:
        """What the nodes' own daemons logged: among other things whom they killed."""
        logs = Path(self._cluster.head_node.get_logs_dir_path())
        return "".join(path.read_text() for path in sorted(logs.glob("raylet*.out")))

    def stop(self) -> None:
        """Kill every node, the head last."""
        for node in self.all():
            self.kill(node)
        self.kill(self._cluster.head_node)


@contextlib.contextmanager
def cluster(nodes: int, **head: Any) -> Iterator[Nodes]:
    """A cluster; ``head`` goes to its head node."""
    running = Nodes(nodes, head)
    try:
        yield running
    finally:
        running.stop()
