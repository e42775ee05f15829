"""Shards that the loaders' tests share: built once a session, never written to."""

from pathlib import Path

import pytest

from benchmarks.trees import make_config, make_tree
from refit_shard.cli import main

FRAMES = {"bedlam": 14, "agora": 4, "coco": 10, "h36m": 4}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bedlam, agora, coco and h36m (the one with extrinsics), several small shards each."""
    folder = tmp_path_factory.mktemp("stream")
    trees = [make_tree(name, folder, frames=frames) for name, frames in FRAMES.items()]
    config = make_config(folder, trees)
    what = [word for name in FRAMES for word in ("--dataset", name)]
    where = ["--data-config", str(config), "--out", str(folder / "shards")]
    how = ["--workers", "0", "--samples-per-shard", "8", "--box-px", "96"]
    assert main(["build", *what, *where, *how]) == 0
    return folder / "shards"
