"""Every benchmark runs, at tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_build, bench_peers
from benchmarks.peer_cases import OURS, PEERS, REFIT


def test_bench_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert bench_build.main(arguments) == 0
    results = json.loads(out.read_text())
    assert results.keys() >= {"machine", "settings", "speed", "memory", "planning"}
    assert results["machine"].keys() >= {"cpu", "cores", "python", "packages"}
    speed = results["speed"]
    assert set(speed["samples_per_second"]) == {
        "bound",
        "build",
        "bound_one_core",
        "build_one_core",
        "naive_one_core",
    }
    assert all(case["median"] > 0 for case in speed["samples_per_second"].values())
    assert set(speed["ratio"]) == {"build", "build_one_core", "naive_one_core"}
    assert results["memory"]["shards"] == bench_build.QUICK.long_shards
    assert all(worker["peak_bytes"] > 0 for worker in results["memory"]["workers"])
    assert results["planning"]["rows"] == bench_build.QUICK.plan_rows
    assert "| naive" in capsys.readouterr().out


def test_bench_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every loader that is installed is measured; every other one is named, in both outputs."""
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert bench_peers.main(arguments) == 0
    printed = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert results.keys() >= {"machine", "settings", "skipped", "samples_per_second", "ours_over"}
    measured = {one["contender"] for one in results["samples_per_second"]}
    assert measured == {OURS, REFIT, *PEERS} - results["skipped"].keys()
    assert measured >= {OURS, "webdataset", REFIT}
    assert all(one["median"] > 0 for one in results["samples_per_second"])
    assert {one["contender"] for one in results["ours_over"]} == measured - {OURS, REFIT}
    for name, why in results["skipped"].items():
        assert f"Left out: {PEERS[name].title}: {why}" in printed
    assert "| ReFit's way" in printed
