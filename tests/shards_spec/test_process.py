"""How many cores a process may use: what the scheduler and the control groups say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refit_shard.shards_spec.process import available_cores

ASKED = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from refit_shard.converter.build.ray_room import local_options
from refit_shard.shards_spec.process import available_cores
print(available_cores(), local_options(None)["num_cpus"], local_options(3)["num_cpus"])
"""


def test_one_core_by_affinity_is_one_worker() -> None:
    """For threads, and for Ray; what the user says goes before it."""
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "3"]


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/not/there\n", {"cpu.max": "50000 100000"}, 1),  # a container sees its own alone
        ("0::/\n", {"cpu.max": "9900000 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "1 0"}, None),
        (
            "4:cpu,cpuacct:/job\n3:memory:/x\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "4:cpu:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            "4:memory:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("no line of this kind\n", {}, None),
    ],
)
def test_a_quota_of_a_control_group(
    tmp_path: Path, groups: str, files: dict[str, str], cores: int | None
) -> None:
    """Version 2 and 1; None: as many as by the scheduler."""
    proc = tmp_path / "cgroup"
    proc.write_text(groups)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = available_cores(proc, tmp_path / "mount")
    assert found == (len(os.sched_getaffinity(0)) if cores is None else cores)


def test_one_and_a_half_cores_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert available_cores(tmp_path / "cgroup", tmp_path) == 2
    assert available_cores(tmp_path / "nowhere", tmp_path) == 8
