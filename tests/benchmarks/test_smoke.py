"""Every benchmark runs, at tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    bench_archives,
    bench_build,
    bench_gpu,
    bench_late_build,
    bench_late_stream,
    bench_load,
    bench_loop,
    bench_peers,
    bench_policy,
    bench_query,
    bench_report,
    bench_startup,
    bench_videos,
    late_storage,
    soak,
)
from benchmarks.load_stages import STAGES
from benchmarks.peer_cases import OURS, PEERS, REFIT


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What several benchmarks make alike is made once."""
    return tmp_path_factory.mktemp("cache")


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
    assert results["planning"][0]["rows"] == bench_build.QUICK.plan_rows
    shares = [share for name, share in results["stages"].items() if name != "whole"]
    assert sum(shares) == pytest.approx(1.0)
    assert results["stages"]["decode"] == max(shares[:-1])
    assert speed["over_older"] is None
    assert "| naive" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_late_build(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From late files and from a late store."""
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(cache), "--out", str(out)]
    assert bench_late_build.main(arguments) == 0
    measured = json.loads(out.read_text())["build"]
    assert set(measured) == {"files", "store"}
    for one in measured.values():
        assert set(one["ratios"]) == set(one["samples_per_second"]) == {"0", "5"}
        assert all(rate["median"] > 0 for rate in one["samples_per_second"].values())
    assert "| store | 5 ms |" in capsys.readouterr().out


def test_late_files_wait_and_others_do_not(tmp_path: Path) -> None:
    """A process opens a file of the folder, and one beside it."""
    library = late_storage.late_library(tmp_path, late_storage.OPENS)
    (tmp_path / "late").mkdir()
    code = "import sys, time; t = time.monotonic(); open(sys.argv[1], 'w').close(); "
    code += "print(time.monotonic() - t)"
    took = {}
    with late_storage.late_files(library, tmp_path / "late", 300):
        for name in ("late/file", "file"):
            command = [sys.executable, "-c", code, str(tmp_path / name)]
            took[name] = float(subprocess.run(command, capture_output=True, check=True).stdout)
    assert took["late/file"] >= 0.3
    assert took["file"] < took["late/file"]


def test_bench_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert bench_archives.main(arguments) == 0
    results = json.loads(out.read_text())
    for kind in ("tar", "zip"):
        for how in ("made", "used"):
            assert results["lists"][kind][how]["seconds"] > 0
    assert results["build"]["tars_over_files"]["median"] > 0
    assert "Tars over files" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
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


@pytest.mark.slow  # many fresh processes
def test_bench_load(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages leave no time out, and the decoding alone is less than all."""
    out = tmp_path / "results.json"
    assert bench_load.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert set(results["samples_per_second"]) == {*bench_load.all_cases(bench_load.QUICK)}
    assert all(one["median"] > 0 for one in results["samples_per_second"].values())
    assert all(one["median"] > 0 for one in results["ratios"])
    (stages,) = results["stages"]
    times = stages["microseconds"]
    assert set(times) == {"bare", "whole", "shown", *STAGES}
    assert all(one > 0 for one in times.values())
    assert times["shown"] < times["whole"]
    assert "| uint8 over bare decode |" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_policy(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part is measured beside ReFit's policy."""
    out = tmp_path / "results.json"
    assert bench_policy.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["microseconds"].keys() == bench_policy.PARTS.keys()
    assert all(one["median"] > 0 for one in results["microseconds"].values())
    assert results["more"].keys() == bench_policy.PARTS.keys() - {bench_policy.REFITS}
    assert "| blur |" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_loop(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every case is measured."""
    out = tmp_path / "results.json"
    assert bench_loop.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    felt = json.loads(out.read_text())["felt"]
    assert len(felt) == len(bench_loop.CASES)
    assert all(felt[f"uint8: {case.title}"]["median"] >= 0 for case in bench_loop.CASES[:3])
    assert "| next, ready, ms |" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_late_stream(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A read that waits 5 ms is waited for; in a batch of four, all are."""
    out = tmp_path / "results.json"
    assert bench_late_stream.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert set(results["samples_per_second"]) == set(results["ratios"]) == {"0", "5"}
    assert all(one["median"] > 0 for one in results["samples_per_second"].values())
    assert "| 5 ms |" in capsys.readouterr().out


def test_bench_query(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert bench_query.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["rows"] == {"many": 400, "few": 80}
    assert set(results["seconds"]) == {"a joint, many rows", "a joint, few rows"}
    assert all(one["median"] > 0 for one in results["seconds"].values())
    assert all(one > 1e6 for one in results["peak_bytes"].values())
    assert "| a joint, many rows |" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_startup(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert bench_startup.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["settings"]["many_rows"] == 400
    seconds = results["starts"]["seconds"]
    assert set(seconds) == {"uint8, cold, many rows", "uint8, cold, few rows", "uint8, resumed"}
    assert all(one["median"] > 0 for one in seconds.values())
    (loader,) = results["memory"]["loaders"]
    assert loader["above_idle_bytes"] == (
        max(loader["readings_bytes"]) - results["memory"]["idle_bytes"]
    )
    assert "| uint8, resumed |" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_gpu(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--device", "cpu", "--cache", str(cache), "--out", str(out)]
    assert bench_gpu.main(arguments) == 0
    results = json.loads(out.read_text())
    assert [one["batch"] for one in results["batches"]] == [2]
    assert all(one["median"] > 0 for one in results["batches"][0]["images_per_second"].values())
    assert 0 <= results["batches"][0]["waiting"]["median"] < 1
    assert "| 2 |" in capsys.readouterr().out


def test_bench_gpu_says_that_there_is_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, the same in the results, and nothing is made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cache, out = tmp_path / "cache", tmp_path / "results.json"
    assert bench_gpu.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    skipped = json.loads(out.read_text())["skipped"]
    assert skipped
    assert f"not measured: {skipped}" in capsys.readouterr().out
    assert not cache.exists()


@pytest.mark.slow  # many fresh processes
def test_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sampled, killed by every means that the seed gives, and equal to the quiet build."""
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    code = soak.main(arguments)
    results = json.loads(out.read_text())
    assert code == bool(results["wrong"])
    stream = results["stream"]
    assert len(stream["seconds"]) > 1
    assert min(stream["memory_bytes"]) > 0
    assert max(stream["processes"]) == 1  # workers are threads
    assert results["build"]["wrong"] == []
    assert len(results["build"]["killed"]) == soak.QUICK.kills
    assert "files compared" in capsys.readouterr().out


@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize("line", sorted(soak.BOUNDS))
def test_soak_finds_what_grows(line: str, leak: float) -> None:
    """A tenth over the run, beneath noise and a few outliers; noise alone is no growth."""
    rng = np.random.default_rng(0)
    time = np.linspace(0, 3600, 120)
    samples = {name: (1000 + rng.integers(-5, 6, 120)).tolist() for name in soak.BOUNDS}
    grown = np.array(samples[line]) * (1 + leak * time / 3600)
    grown[[50, 80]] = 2000
    found = soak.judge({**samples, line: grown.tolist(), "seconds": time.tolist()})
    assert len(found) == bool(leak)
    assert all(one.startswith(f"{line} grows by") for one in found)


def test_bench_videos(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert bench_videos.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert set(results["cases"]) == {"mpi-inf-3dhp", "h36m", "bedlam"}
    for case in results["cases"].values():
        assert all(one["median"] > 0 for one in case["frames_per_second"].values())
        assert case["ratio"]["median"] > 0
    assert "| bedlam: 1280x720 px, libx264, one in 5, in a tar |" in capsys.readouterr().out


@pytest.mark.slow  # many fresh processes
def test_bench_report(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert bench_report.main(["--quick", "--cache", str(cache), "--out", str(out)]) == 0
    sets = json.loads(out.read_text())["sets"]
    assert [one["rows"] for one in sets] == [40, 120]
    assert all(one["seconds"]["median"] > 0 < one["peak_bytes"]["median"] for one in sets)
    assert "| 120 |" in capsys.readouterr().out
