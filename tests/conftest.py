"""Fixtures that many tests share. Trees are made once per session; no test may write to them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.trees import Tree, make_tree
from refit_shard.loaders.native.compiling import compile_library, is_current
from tests.browser import Browser, started
from tests.searches import register_profiles

register_profiles()
# A shell starts background programs with Ctrl-C ignored, and their child processes would inherit
# this.
signal.signal(signal.SIGINT, signal.default_int_handler)
if not is_current():  # the library's sources were edited
    compile_library()


@pytest.fixture(scope="session")
def bedlam_tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Twelve BEDLAM frames, some of them closeups stored on their side."""
    return make_tree("bedlam", tmp_path_factory.mktemp("bedlam"), frames=12)


@pytest.fixture(scope="session")
def coco_tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Twelve COCO frames."""
    return make_tree("coco", tmp_path_factory.mktemp("coco"), frames=12)


@pytest.fixture(scope="session")
def pw3d_tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Four 3DPW frames."""
    return make_tree("3dpw", tmp_path_factory.mktemp("3dpw"), frames=4)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; tests that need it are skipped if it is not installed."""
    yield from started(tmp_path_factory.mktemp("browser"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for shards."""
    return tmp_path / "shards"
