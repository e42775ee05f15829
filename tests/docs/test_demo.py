"""The demo's output is the one that the README shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refit_shard.converter.annotations.datasets import DATASETS
from tests.docs.blocks import fits, said
from tests.docs.pages import PROJECT, written


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(
        PROJECT, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "demo", "data", "site")
    )
    roots = {dataset.root_variable for dataset in DATASETS.values()}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=copy,
        env={name: value for name, value in os.environ.items() if name not in roots}
        | {"PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    (page,) = (page for page in written() if page.path == "README.md")
    block = page.blocks()[0]
    shown = block.text.removeprefix("$ make demo\n")
    assert fits(shown, done.stdout), said(block, shown, done.stdout)
