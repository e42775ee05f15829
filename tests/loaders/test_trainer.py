"""A program that uses the loaders as ReFit's trainer does, run as a user runs it."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.trees import make_config, make_tree
from refit_shard.cli import main
from refit_shard.loaders.refit.checkpoints import admit_numbers
from tests.loaders.body_model import write_bodies
from tests.loaders.test_ranks import VARIABLES
from tests.small import PROJECT

BATCH = 4
CHECKPOINT = "checkpoint.pth.tar"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to train in: shards and body models at ReFit's places."""
    folder = tmp_path_factory.mktemp("project")
    trees = [make_tree(name, folder, frames=5) for name in ("agora", "coco", "3dpw_test")]
    config = ["--data-config", str(make_config(folder, trees))]
    sets = [word for name in ("agora", "coco", "3dpw_test_sub") for word in ("--dataset", name)]
    out = ["--out", str(folder / "data/shards"), "--workers", "0", "--box-px", "64"]
    assert main(["subset-3dpw", *config, "--rows", "5"]) == 0
    assert main(["build", *sets, *config, *out]) == 0
    write_bodies(folder / "data/smpl", pickled=True)
    return folder


@dataclass
class Run:
    """How the program ended, what it said, and the lines of its log."""

    code: int
    err: str
    lines: list[dict[str, Any]]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The lines of training."""
        return [line for line in self.lines if "step" in line]

    @property
    def seed(self) -> int:
        """The seed that was drawn."""
        found = re.search(r"SEED_VALUE: (\d+) repeats", self.err)
        assert found is not None, self.err
        return int(found[1])


@dataclass
class Job:
    """A config and the folder of its results, to be run repeatedly."""

    project: Path
    logdir: Path

    @property
    def checkpoint(self) -> Path:
        """What the program saves."""
        return self.logdir / CHECKPOINT

    def run(self, *, partition: tuple[float, ...] = (0.6, 0.4), **changes: Any) -> Run:
        """Train as the config says with these changes; upper-case keys of TRAIN are put there."""
        self.logdir.mkdir(exist_ok=True)
        (self.logdir / "log.jsonl").unlink(missing_ok=True)
        train: dict[str, Any] = {"BATCH_SIZE": BATCH, "END_EPOCH": 3, "SAVE_STEP": 1}
        content: dict[str, Any] = {
            "IMG_RES": 32,
            "NUM_WORKERS": 0,
            "LOGDIR": str(self.logdir),
            "DATASET": {"LIST": ["agora", "coco"], "PARTITION": list(partition)},
            "TRAIN": train,
        }
        for key, value in changes.items():
            top = key in ("NUM_WORKERS", "SEED_VALUE", "EVAL_JOINTS", "CHANGED")
            (content if top else train)[key] = value
        (self.logdir / "config.yaml").write_text(yaml.safe_dump(content))
        done = subprocess.run(
            [sys.executable, "-m", "tests.loaders.refit_trainer", self.logdir / "config.yaml"],
            cwd=self.project,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        log = self.logdir / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return Run(done.returncode, done.stderr, [json.loads(line) for line in lines])


@pytest.fixture
def job(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A training job of its own, which no launcher started."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Job(project, tmp_path / "results")


# Worker counts of the three runs that make one training, and of the one that was not stopped.
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param((2, 0, 2, 0), id="both"),
        *(pytest.param((n, n, n, 2 - n), id=str(n), marks=pytest.mark.slow) for n in (0, 2)),
    ],
)
def test_a_training_that_is_stopped_twice_is_as_one_that_was_not(
    job: Job, workers: tuple[int, int, int, int]
) -> None:
    """In the middle of an epoch and at its last batch; with a seed that was drawn, checkpoints
    through torch.load's defaults, validations on SMPL's pickles; the third run says its seed.
    """
    rows = 11
    each = -(-rows // BATCH)
    how: dict[str, Any] = {"VALID_STEP": 2, "RESUME": str(job.checkpoint)}
    first = job.run(**how, SEED_VALUE=-1, NUM_WORKERS=workers[0], MAX_STEP=each - 1)
    assert first.code == 0, first.err
    second = job.run(**how, SEED_VALUE=-1, NUM_WORKERS=workers[1], MAX_STEP=2 * each)
    third = job.run(**how, SEED_VALUE=first.seed, NUM_WORKERS=workers[2])
    assert (second.code, third.code) == (0, 0), second.err + third.err
    job.checkpoint.unlink()
    whole = job.run(**how, SEED_VALUE=first.seed, NUM_WORKERS=workers[3])
    assert whole.code == 0, whole.err
    assert first.steps + second.steps + third.steps == whole.steps
    assert [step["epoch"] for step in whole.steps] == [n // each for n in range(3 * each)]
    sizes = [len(step["names"]) for step in whole.steps[:each]]
    assert sizes == [BATCH] * (each - 1) + [rows - BATCH * (each - 1)]
    validations = [line for line in whole.lines if "validated" in line]
    assert len(validations) == 1 + 3 * each // 2
    assert all((line["validated"], line["of"]) == (5, 5) for line in validations)
    assert all(np.isfinite(line["performance"]) for line in validations)


@pytest.mark.slow  # several trainings
def test_a_checkpoint_of_refits_own_loader_gives_its_weights(job: Job) -> None:
    """The refusal says how, and so it works."""
    how: dict[str, Any] = {"SEED_VALUE": 3, "EVAL_JOINTS": "none"}  # quicker
    assert job.run(**how, MAX_STEP=1).code == 0
    checkpoint = torch.load(job.checkpoint, weights_only=False)
    torch.save(checkpoint | {"dataperm": [4, 0, 2, 1, 3]}, job.checkpoint)
    refused = job.run(**how, RESUME=str(job.checkpoint))
    assert refused.code == 2
    assert "TRAIN.IS_FINETUNE: True beside TRAIN.RESUME" in refused.err
    assert "Traceback" not in refused.err
    tuned = job.run(**how, RESUME=str(job.checkpoint), IS_FINETUNE=True, MAX_STEP=2)
    assert tuned.code == 0, tuned.err
    assert [step["step"] for step in tuned.steps] == [1, 2]


@pytest.mark.slow  # several trainings
def test_another_partition_goes_on_where_it_is_meant(job: Job) -> None:
    """The refusal says how; ReFit's trainer is given no word for it by its config alone."""
    how: dict[str, Any] = {"SEED_VALUE": 3, "EVAL_JOINTS": "none", "RESUME": str(job.checkpoint)}
    first = job.run(**how, MAX_STEP=2)
    refused = job.run(**how, partition=(3, 1))
    assert refused.code == 2
    assert "ratio is 0.6, this loader's is 0.75" in refused.err
    assert "with ReFit's trainer get_dataloaders(cfg, changed=('ratios',))" in refused.err
    assert "are divided by their sum: agora 0.75, coco 0.25" in refused.err
    changed = job.run(**how, partition=(3, 1), CHANGED=["ratios"], MAX_STEP=3)
    assert changed.code == 0, changed.err
    seen = [tuple(name) for step in first.steps + changed.steps for name in step["names"]]
    assert len(seen) == len(set(seen)) == 3 * BATCH - 1  # each source at its own next draw


def test_a_validation_without_a_regressor_stops_before_training(job: Job, tmp_path: Path) -> None:
    """Without it and without models; with it alone a training goes through."""
    job.project, data = tmp_path, job.project / "data"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shards").symlink_to(data / "shards")
    stopped = job.run(EVAL_JOINTS="none", MAX_STEP=1)
    assert stopped.code == 2
    assert "H36M joint regressor is missing" in stopped.err.splitlines()[-1]
    assert stopped.lines == []
    (tmp_path / "data/smpl").mkdir()
    (tmp_path / "data/smpl/J_regressor_h36m.npy").symlink_to(data / "smpl/J_regressor_h36m.npy")
    done = job.run(EVAL_JOINTS="none", MAX_STEP=1)
    assert done.code == 0, done.err
    assert [line["validated"] for line in done.lines if "validated" in line] == [5]
    assert len(done.steps) == 1


@pytest.mark.skipif(torch.__version__ < "2.6", reason="an older torch.load reads whatever there is")
def test_a_checkpoint_with_numbers_of_either_numpy_is_read() -> None:
    """By torch.load's defaults; numpy's arrays, texts and records stay refused."""
    numbers = {"performance": [np.float64(61.5), np.float32(0.5), np.int64(3), np.bool_(1)]}
    saved = saved_bytes(numbers)
    admit_numbers()
    numpys = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    for old, new in (numpys, numpys[::-1]):
        assert torch.load(io.BytesIO(renamed(saved, old, new))) == numbers
    for other in (np.zeros(1), np.str_("x"), np.void(b"abc"), np.datetime64("2020-01-01")):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            torch.load(io.BytesIO(saved_bytes(other)))


def saved_bytes(content: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def renamed(saved: bytes, old: bytes, new: bytes) -> bytes:
    """The file as a numpy writes it that calls a module by another name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as file, zipfile.ZipFile(stream, "w") as other:
        for name in file.namelist():
            other.writestr(name, file.read(name).replace(old, new))
    return stream.getvalue()


RANK = """
import sys
import torch.distributed as dist
from refit_shard import StreamOptions
from refit_shard.refit import get_dataloaders
rank, store = int(sys.argv[1]), sys.argv[2]
if store:
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
options = StreamOptions(rank=rank, world_size=2)
cfg = {"SEED_VALUE": -1, "NUM_WORKERS": 0, "IMG_RES": 16, "TRAIN": {"BATCH_SIZE": 2}}
cfg["DATASET"] = {"LIST": ["agora"], "PARTITION": [1]}
train_loader, _ = get_dataloaders(cfg, options=options, eval_joints="none")
print(train_loader.options.seed, next(iter(train_loader))["sample_index"].tolist())
"""


def run_ranks(project: Path, store: str) -> list[tuple[str, str]]:
    """What each of two ranks prints, to stdout and stderr."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), store],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [rank.communicate(timeout=120) for rank in ranks]


def test_rank_0_draws_the_seed_for_all(job: Job, tmp_path: Path) -> None:
    """Through the process group; without one, no rank draws one of its own."""
    found = [out.split(maxsplit=1) for out, _ in run_ranks(job.project, tmp_path.as_uri() + "/s")]
    (seed, first), (other, second) = found
    assert seed == other
    assert not set(yaml.safe_load(first)) & set(yaml.safe_load(second))
    for _, err in run_ranks(job.project, ""):
        assert re.search(r"UsageError: SEED_VALUE: .*rank \d of 2 cannot receive it from rank", err)
