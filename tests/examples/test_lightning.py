"""The Lightning data module: a training that is stopped anywhere goes on as if it had not been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from refit_shard import StreamingLoader
from tests.examples.lightning_run import EPOCHS, Net, make_data, train
from tests.loaders.test_ranks import VARIABLES
from tests.small import PROJECT, own

# Lightning's own, with the torch of today.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of eleven rows and a config; nobody launched this process."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert own(tmp_path, rows=11).build("--samples-per-shard", 4).code == 0
    (tmp_path / "config.yaml").write_text("DATASET: {LIST: [own], PARTITION: [1.0]}\n")
    return tmp_path


def rows_of_the_stream(folder: Path, batch_size: int, batches: int) -> list[list[int]]:
    """What the loader itself gives, epoch after epoch."""
    loader = StreamingLoader.from_config(
        folder / "config.yaml",
        shards=folder / "shards",
        batch_size=batch_size,
        epoch_samples=8,
        res=16,
        num_workers=0,
    )
    found: list[list[int]] = []
    while len(found) < batches:
        found += [batch["sample_index"].tolist() for batch in loader]
    return found[:batches]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="validation within epochs"),
        pytest.param({"val_check_interval": 1.0}, id="validation after epochs"),
        pytest.param({"limit_train_batches": 3}, id="short epochs"),
    ],
)
def test_what_follows_a_checkpoint_is_what_followed_in_the_run_that_saved_it(
    folder: Path, options: dict[str, Any]
) -> None:
    """Saved within each step, after it, after each validation and epoch: all batches of training
    and validation are the same, in the same epochs, and so is the trained model. Only the
    validation that is due right after a step's checkpoint is one that Lightning leaves out.
    """
    whole = Net(folder)
    train(whole, make_data(folder), **options)
    steps = [event for event in whole.events if event[0] == "train"]
    each = options.get("limit_train_batches", 4)
    assert [event[1:3] for event in steps] == [(n // each, n % each) for n in range(each * EPOCHS)]
    assert [event[3] for event in steps] == rows_of_the_stream(folder, 2, len(steps))
    moments = {name[4:] for name in whole.saved}
    assert len(moments) == 4
    for name, before in whole.saved.items():
        rest, expected = Net(), whole.events[before:]
        while name.endswith("after-step.ckpt") and expected and expected[0][0] == "validate":
            del expected[0]
        train(rest, make_data(folder, num_workers=0), folder / name, **options)
        assert rest.events == expected, name
        assert torch.equal(rest.weight, whole.weight), name


@pytest.mark.parametrize("limits", [{"max_epochs": 1}, {"max_steps": 8}])
def test_a_checkpoint_that_is_saved_after_a_training_goes_on(
    folder: Path, limits: dict[str, Any]
) -> None:
    whole, part, rest = Net(), Net(), Net()
    train(whole, make_data(folder))
    train(part, make_data(folder), **limits).save_checkpoint(folder / "end.ckpt")
    train(rest, make_data(folder), folder / "end.ckpt")
    assert part.events + rest.events == whole.events
    assert len(part.events) < len(whole.events)


@pytest.mark.slow  # two trainings of two processes
def test_two_ranks_go_on_together(folder: Path) -> None:
    """Their parts of a step are the step of one process, before and after the checkpoint."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.examples.lightning_run", str(folder)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    for rank in ranks:
        assert rank["rest"] == rank["whole"][rank["after"] :]
        assert 0 < len(rank["rest"]) < len(rank["whole"])
    first, second = ([event for event in rank["whole"] if event[0] == "train"] for rank in ranks)
    together = [one[3] + other[3] for one, other in zip(first, second, strict=True)]
    assert together == rows_of_the_stream(folder, 4, 2 * EPOCHS)
