"""``refit-shard simulate``: figures that can be counted by hand, from manifests alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loaders.manifests import make_config, make_manifest
from tests.small import error_line, refit

SHARD = 10 * 100


def found(config: Path, folder: Path, cache: object, *args: object) -> dict[str, Any]:
    """What it prints for scripts."""
    result = refit("simulate", config, "--shards", folder, "--cache", cache, "--json", *args)
    content: dict[str, Any] = json.loads(result.out)
    assert result.code == (0 if content["fits"] else 1), result.err
    return content


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Forty shards and ten, of ten rows each; three rows in four come from the first."""
    make_manifest(tmp_path, "large", [10] * 40)
    make_manifest(tmp_path, "little", [10] * 10)
    return make_config(tmp_path, {"large": 0.75, "little": 0.25}, batch_size=4)


def test_a_cache_for_everything_reads_each_shard_once(two: Path) -> None:
    content = found(two, two.parent, "1MB", "--window", 2)
    assert content["samples_per_epoch"] == 400
    first, second = content["epochs"]
    # 300 draws of the large one's 400 rows, and the little one's 100 rows once.
    assert 30 * SHARD <= first["bytes"] - 10 * SHARD <= 34 * SHARD
    assert first["bytes"] + second["bytes"] == 50 * SHARD
    repeats = {one["name"]: one["repeats"] for one in content["sources"]}
    assert repeats == {"large": 0.75, "little": 1.0}
    assert content["needed_bytes"] <= content["cache_bytes"] == 1_000_000


def test_a_small_cache_reads_a_shard_once_a_pass(two: Path) -> None:
    """Which is all that the draws need, as long as the working window fits."""
    content = found(two, two.parent, "40 kB", "--window", 1, "--world-size", 2)
    assert content["fits"]
    total = sum(epoch["bytes"] for epoch in content["epochs"])
    # 600 draws of 400 rows, 200 of 100: beyond the first pass it is what was let go.
    assert 50 * SHARD <= total <= (60 + 20 + 4) * SHARD


def test_a_wide_window_reads_more_and_needs_more(two: Path) -> None:
    """Wherever the cache holds what is in use at a time."""
    results = [found(two, two.parent, "30kB", "--window", window) for window in (1, 4, 8, 100)]
    needed = [result["needed_bytes"] for result in results]
    assert needed == sorted(needed)
    assert needed[-1] == 50 * SHARD
    assert [result["fits"] for result in results] == [True, True, True, False]
    read = [result["epochs"][1]["bytes"] for result in results[:3]]
    assert read == sorted(set(read))


def test_a_cache_that_the_loader_refuses_has_no_figures(two: Path) -> None:
    """Only what it needs; with that much it is taken."""
    content = found(two, two.parent, "10kB", "--window", 100)
    assert not content["fits"]
    assert content["epochs"] == []
    result = refit("simulate", two, "--shards", two.parent, "--cache", "10kB", "--window", 100)
    assert "epoch: " not in result.out
    assert "before the first batch" not in result.out
    asked = result.out.rpartition("give at least --cache ")[2].partition(",")[0]
    assert found(two, two.parent, asked, "--window", 100)["fits"]


def test_before_the_first_batch(two: Path) -> None:
    """Without workers one shard for a sample; with them those of all batches that they begin."""
    config = make_config(two.parent, {"large": 1.0, "little": 0.0}, batch_size=1)
    with_workers = found(config, two.parent, "1MB", "--window", 1)["first_batch_bytes"]
    config.write_text(config.read_text() + "NUM_WORKERS: 0\n")
    assert found(config, two.parent, "1MB", "--window", 1)["first_batch_bytes"] == SHARD
    assert SHARD < with_workers <= 4 * SHARD
    many = ("--world-size", 400, "--node-ranks", 400)
    assert found(config, two.parent, "1MB", *many)["first_batch_bytes"] == 40 * SHARD


def test_the_table(two: Path) -> None:
    """Lines that a person reads; a cache that is too small is said and gives 1."""
    args = ("simulate", two, "--shards", two.parent, "--window", 2)
    result = refit(*args, "--cache", "1GB")
    assert result.code == 0
    assert "before the first batch: " in result.out
    assert "of a cache of 1.0 GB" in result.out
    result = refit(*args, "--cache", "3kB")
    assert result.code == 1
    assert "more than the cache of 3.0 kB: the loader would refuse it" in result.out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--cache", "much"), "--cache: must be a number of bytes such as '200GB', got 'much'"),
        (("--cache", "1GB", "--window", 0), "window: must be a whole number"),
        (("--cache", "1GB", "--node-ranks", 2), "--node-ranks: must be 1 to --world-size 1"),
        (("--cache", "1GB", "--world-size", 0), "--world-size: must be at least 1, got 0"),
        (("--cache", "1GB", "--shards", "nowhere"), "large: no finished shards at nowhere/large"),
    ],
)
def test_wrong_use(two: Path, args: tuple[object, ...], named: str) -> None:
    result = refit("simulate", two, "--shards", two.parent, *args)
    assert result.code == 2
    assert named in error_line(result)
