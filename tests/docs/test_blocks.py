"""Every code block of the documentation runs in a folder like a ReFit user's, as a reader would run
it.
"""

import logging
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.annotations import eft_entry, write_eft
from benchmarks.trees import make_tree
from examples.demo import FRAMES, pack_bedlam
from refit_shard.converter.annotations.datasets import DATASETS
from tests.docs.blocks import Runner, commands, fits
from tests.docs.pages import PROJECT, Block, Page, written
from tests.small import refit

TREES = {**FRAMES, "3dpw_test": 3}  # frames of the demo's datasets, and of one for evaluation


def make_downloads(folder: Path) -> None:
    """Write annotations as the datasets' sites distribute them, and ReFit's occluders."""
    names = [f"COCO_train2014_{number:012d}.jpg" for number in (1, 6, 11)]
    write_eft(
        folder / "COCO2014-All-ver01.json",
        [eft_entry(name, seed) for seed, name in enumerate(names)],
    )
    cut_outs = [np.full((20 + n, 30, 4), 40 * n, np.uint8) for n in (1, 2, 3)]
    (folder / "data/dataset_extras/pascal_occluders.pkl").write_bytes(pickle.dumps(cut_outs))


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trainer's folder: ``data_config.py``, ``configs/``, ``data/`` with frames, npz, shards."""
    folder = tmp_path_factory.mktemp("trainer")
    shutil.copytree(PROJECT / "configs", folder / "configs")
    config = (PROJECT / "data_config.py").read_text()
    for dataset, frames in TREES.items():
        tree = make_tree(dataset, folder / "data", frames=frames)
        root = DATASETS[dataset].root_variable
        config = config.replace(f'{root} = ""', f'{root} = "{tree.root.relative_to(folder)}"')
        if dataset == "bedlam":
            pack_bedlam(tree)
    (folder / "data_config.py").write_text(config)
    make_downloads(folder)
    chosen = [word for dataset in TREES for word in ("--dataset", dataset)]
    places = ["--data-config", folder / "data_config.py", "--out", folder / "data/shards"]
    built = refit("build", *chosen, *places, "--workers", 0)
    assert built.code == 0, built.err
    return folder


@pytest.fixture
def folder(trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the trainer's folder, made the current folder."""
    copy = tmp_path / "ReFit"
    shutil.copytree(trainer, copy)
    monkeypatch.chdir(copy)
    before = dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in ("", "refit_shard")}
    yield copy
    os.environ.clear()
    os.environ.update(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("page", written(), ids=lambda page: page.path)
@pytest.mark.usefixtures("folder")
def test_blocks_do_what_the_page_shows(page: Page) -> None:
    runner, blocks = Runner(), page.blocks()
    for number, block in enumerate(blocks, 1):
        runner.run(block, blocks[number] if number < len(blocks) else None)


def test_most_blocks_are_run() -> None:
    blocks = [block for page in written() for block in page.blocks()]
    code = [block for block in blocks if block.language in ("python", "console", "sh")]
    looked_at = [block for block in code if "not run" in block.notes]
    print(f"\n{len(blocks)} blocks: {len(code) - len(looked_at)} run, {len(looked_at)} looked at")
    assert len(looked_at) < len(code) / 2


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
        ("took … s\n", "took 1.25 s\n", True),
        ("took … s\n", "took 1.25\n s\n", False),
        ("1.5 (a)\n", "125 (a)\n", False),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_what_is_shown_is_compared(shown: str, printed: str, same: bool) -> None:
    assert fits(shown, printed) is same


def block(language: str, text: str, **notes: str) -> Block:
    return Block(page="p.md", line=1, language=language, text=text, notes=notes)


@pytest.mark.parametrize(
    "wrong",
    [
        block("python", "1 / 0"),
        block("python", "from refit_shard import Nothing", **{"not run": "why"}),
        block("python", "def f(:", **{"not run": "why"}),
        block("python", "1", **{"not run": ""}),
        block("python", "print(1)"),
        block("sh", "false\n"),
        block("sh", "true\n", **{"ends with": "1"}),
        block("console", "$ echo a\nb\n"),
        block("sh", "refit-shard build --no-such-option", **{"not run": "why"}),
        block("sh", "if true; then", **{"not run": "why"}),
        block("yaml", "a: ["),
        block("", "no language"),
    ],
)
def test_a_wrong_block_is_found(wrong: Block) -> None:
    with pytest.raises(Exception, match=re.compile(r".")):
        Runner().run(wrong, None)


def test_lines_that_go_on_are_one_command() -> None:
    shell = block("console", "$ echo a \\\n  b\na b\n$ echo c\nc\n")
    assert commands(shell) == [("echo a \\\n  b", "a b\n"), ("echo c", "c\n")]
    Runner().run(shell, None)
