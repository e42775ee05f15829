"""``refit-shard bench``: on a tiny set, and what it says of figures that are given to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refit_shard.loaders.measure import bench
from refit_shard.loaders.measure.bench import Speed, StorageSpeed, ThreadsSpeed
from refit_shard.loaders.measure.machine import MachineLoad
from refit_shard.loaders.measure.repeats import Spread
from tests.loaders.manifests import make_config
from tests.small import Own, Result, error_line, hashes, own, refit

QUICK = ("--rounds", 2, "--seconds", 0.01)
CORES = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Twelve rows."""
    made = own(tmp_path_factory.mktemp("bench"), rows=12)
    assert made.build().code == 0
    return made


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A YAML of that set with small batches and images, on three cores."""
    monkeypatch.setattr(bench, "available_cores", lambda: CORES)
    path = make_config(tmp_path, {"own": 1.0}, batch_size=4)
    path.write_text(path.read_text() + "IMG_RES: 64\n")
    return path


def measured(config: Path, shards: Own, *args: object) -> dict[str, Any]:
    """What it prints for scripts."""
    result = refit("bench", config, "--shards", shards.out.parent, "--json", *QUICK, *args)
    assert result.code == 0, result.err
    content: dict[str, Any] = json.loads(result.out)
    return content


def test_figures_of_a_tiny_set_are_consistent(config: Path, shards: Own) -> None:
    before = hashes(shards.folder)
    content = measured(config, shards, "--gpu", 1, "--image", "uint8")
    assert hashes(shards.folder) == before
    assert content["stream"] == {
        "sources": {"own": 1.0},
        "image": "uint8",
        "res": 64,
        "batch_size": 4,
    }
    assert content["settings"] == {"rounds": 2, "seconds": 0.01}
    assert content["samples"] in (4, 8, 12)
    assert [one["threads"] for one in content["threads"]] == [1, 2, CORES]
    for one in content["threads"]:
        for name in ("samples_per_second", "bare_decode", "over_bare", "cores"):
            assert 0 < one[name]["low"] <= one[name]["median"] <= one[name]["high"]
        assert 0 <= one["waiting"]["low"] <= one["waiting"]["high"] <= 1
        stream, bare, over = (one[n] for n in ("samples_per_second", "bare_decode", "over_bare"))
        assert over["low"] >= stream["low"] / bare["high"] * 0.999
        assert over["high"] <= stream["high"] / bare["low"] * 1.001
    storage = content["storage"]
    assert 0 < storage["samples_per_second"]["low"] <= storage["samples_per_second"]["high"]
    assert storage["samples"] >= 4
    assert storage["still_cached"] is None or 0 <= storage["still_cached"] <= 1
    assert content["gpu"] == {
        "images_per_second": 1,
        "threads": 1,
        "measured": True,
        "storage_keeps_up": content["gpu"]["storage_keeps_up"],
    }
    assert content["load"]["usable"] >= 1


def test_a_data_set_alone_is_measured_as_a_table(
    shards: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "available_cores", lambda: 1)
    result = refit("bench", shards.out, "--rounds", 1, "--seconds", 0.01)
    assert result.code == 0, result.err
    title, head, row, *rest = result.out.splitlines()
    assert title == ("own, normalized 256 px, batches of 64, no occluders; 1 rounds of 0.01 s")
    assert head.split()[0] == "threads"
    assert row.split()[0] == "1"
    assert any(line.startswith("from storage") for line in rest)
    assert rest[-1].startswith("refit-shard 0.")


# ------------------------------------------------------------------------------ what is said of it


def given_speed(**changed: Any) -> Speed:
    """Figures of a quiet machine of four cores whose storage is as quick as 5,000 samples/s."""

    def threads(count: int, rate: float, bare: float) -> ThreadsSpeed:
        return ThreadsSpeed(
            threads=count,
            samples_per_second=Spread(rate, rate - 10, rate + 10),
            bare_decode=Spread(bare, bare, bare),
            over_bare=Spread(rate / bare, rate / bare, rate / bare),
            cores=Spread(count, count, count),
            waiting=Spread(0.01, 0.0, 0.02),
        )

    values: dict[str, Any] = {
        "threads": (threads(1, 2000, 1600), threads(2, 4000, 3200), threads(4, 7000, 6000)),
        "storage": StorageSpeed(
            samples_per_second=Spread(5000, 4000, 6000),
            waiting=Spread(0.3, 0.2, 0.4),
            samples=640,
            still_cached=0.0,
        ),
        "load": MachineLoad(others=0.1, stolen=0.0, cores=4, usable=4, before=0.2),
        "samples": 6400,
        "occludes": True,
    }
    return Speed(**(values | changed))


@pytest.fixture
def said(config: Path, shards: Own, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The lines that the command prints of given figures."""

    def run(speed: Speed, *args: object) -> list[str]:
        monkeypatch.setattr(bench, "measure_speed", lambda *_: speed)
        result = refit("bench", config, "--shards", shards.out.parent, *args)
        assert result.code == 0, result.err
        return result.out.splitlines()

    return run


def test_the_line_for_a_readme(said: Callable[..., list[str]]) -> None:
    line = said(given_speed(), "--gpu", 5500)[-1]
    assert ": 7,000 samples/s with 4 threads, 1.17 of bare decode; 2,000 with 1; " in line
    assert "; 5,000 from storage; 5,500 images/s take 3 threads (own, normalized 64 px, " in line
    assert ", 4 cores, 20" in line


def test_a_gpu_that_is_quicker_than_the_machine_and_its_storage(
    said: Callable[..., list[str]],
) -> None:
    lines = said(given_speed(), "--gpu", 14000)
    needs = next(line for line in lines if line.startswith("14,000 images/s: "))
    assert needs.startswith("14,000 images/s: 8 threads, and a core for the loop; ")
    assert (
        "more than the 7,000 samples/s measured here with 4 threads, so 8 is an estimate" in needs
    )
    assert any(line.startswith("storage delivers 5,000 samples/s: too few") for line in lines)
    assert "14,000 images/s take about 8 threads" in lines[-1]


def test_a_busy_machine_is_said_in_the_line_too(said: Callable[..., list[str]]) -> None:
    busy = MachineLoad(others=1.5, stolen=0.5, cores=4, usable=4, before=7.25)
    lines = said(given_speed(load=busy))
    assert (
        "busy machine: other processes used 2.0 of its 4 cores meanwhile (0.5 of them other "
        "virtual machines), load average 7.2 before; the measured speeds are too low"
    ) in lines
    assert "4 cores, busy, 20" in lines[-1]
    assert not any("busy" in line for line in said(given_speed()))


@pytest.mark.parametrize(
    ("held", "line", "is_figure"),
    [
        (0.0, "waiting 30% (20% to 40%), over 640 samples", True),
        (None, "this file system does not tell if the files left the page cache", True),
        (
            1.0,
            "from storage: not measured, because 100% of the files stayed in the page cache",
            False,
        ),
    ],
)
def test_storage_has_figures_only_where_the_page_cache_was_dropped(
    said: Callable[..., list[str]], held: float | None, line: str, is_figure: bool
) -> None:
    storage = StorageSpeed(
        samples_per_second=Spread(5000, 4000, 6000),
        waiting=Spread(0.3, 0.2, 0.4),
        samples=640,
        still_cached=held,
    )
    lines = said(given_speed(storage=storage), "--gpu", 6000)
    assert any(one.endswith(line) for one in lines)
    assert ("5,000 from storage" in lines[-1]) is is_figure
    assert any(one.startswith("storage delivers") for one in lines) is is_figure


# ---------------------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--rounds", 0), "rounds: must be a whole number from 1 to 1000, got 0"),
        (("--seconds", 0), "seconds: must be a number from 0.001 to 3600, got 0.0"),
        (("--seconds", "nan"), "seconds: must be a number from 0.001 to 3600, got nan"),
        (("--gpu", 0), "--gpu: must be a number from 1 to 1e+09, got 0.0"),
        (("--occluders", "nowhere"), "nowhere"),
        (("--shards", "s3://bucket/shards"), "--shards: must be on this machine"),
        (("--shards", "nowhere"), "own: no finished shards at nowhere/own"),
    ],
)
def test_wrong_use(config: Path, shards: Own, args: tuple[object, ...], named: str) -> None:
    result = refit("bench", config, "--shards", shards.out.parent, *QUICK, *args)
    assert result.code == 2
    assert named in error_line(result)


def ended(*args: object) -> tuple[int, str]:
    """How it ends, and its line."""
    result: Result = refit("bench", *args, *QUICK)
    return result.code, error_line(result)


def test_paths_that_hold_nothing_to_measure(shards: Own, tmp_path: Path) -> None:
    assert ended(tmp_path / "gone.yaml")[0] == 2
    code, line = ended("s3://bucket/shards/own")
    assert code == 2
    assert "bench: must be on this machine" in line
    code, line = ended(tmp_path)
    assert code == 1
    assert "no shards there" in line
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(shards.out)
    code, line = ended(tmp_path)
    assert code == 2
    assert "holds 2 datasets; give one of them, or a training YAML with their ratios" in line


def test_a_damaged_sample_and_a_missing_tar_are_one_line(tmp_path: Path) -> None:
    made = own(tmp_path, rows=4)
    assert made.build().code == 0
    (tar,) = made.out.glob("*.tar")
    data = bytearray(tar.read_bytes())
    at = data.index(b"\xff\xd8\xff") + 200
    data[at : at + 40] = bytes(40)
    tar.write_bytes(data)
    code, line = ended(made.out)
    assert code == 1
    assert "run refit-shard verify" in line
    tar.unlink()
    code, line = ended(made.out)
    assert code == 1
    assert tar.name in line
