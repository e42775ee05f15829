"""The benchmark of importing runs, at tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_import


def test_bench_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind is measured, and what was made is gone."""
    out = tmp_path / "results.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert bench_import.main(arguments) == 0
    results = json.loads(out.read_text())
    assert results["rows_per_second"].keys() == bench_import.REAL_ROWS.keys()
    assert all(one["median"] > 0 for one in results["rows_per_second"].values())
    assert "| bedlam, no SMPL |" in capsys.readouterr().out
    assert not any((tmp_path / "cache").iterdir())
