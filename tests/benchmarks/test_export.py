"""The benchmark of exports runs, at tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_export
from refit_shard.converter.export.plan import FORMATS


@pytest.mark.slow
def test_bench_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert bench_export.main(arguments) == 0
    results = json.loads(out.read_text())
    assert tuple(results["rows_per_second"]) == FORMATS
    assert all(one["median"] > 0 for one in results["megabytes_per_second"].values())
    assert results["shards"]["all"] > results["shards"]["few"]
    assert "| energon |" in capsys.readouterr().out
