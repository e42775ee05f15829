"""ReFit's trainer on our loaders: a loop written to its contract, stopped and gone on with."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import webdataset as wds

from benchmarks.trees import Tree, make_config, make_tree
from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    BatchTransform,
    ShardSet,
    StreamOptions,
    render,
    webdataset_item,
)
from refit_shard.cli import main
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.refit.trainer import get_dataloaders
from refit_shard.shards_spec.errors import FormatError, ShardError, UsageError
from tests.loaders.body_model import write_bodies
from tests.loaders.streams import all_items

QUICK = StreamOptions(image="normalized", epoch_samples=40)


@pytest.fixture(scope="module")
def shards(bedlam_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training shards, and the validation subset made by the project's own commands."""
    folder = tmp_path_factory.mktemp("refit")
    agora = make_tree("agora", folder, frames=6)
    test = make_tree("3dpw_test", folder, frames=4)
    config = ["--data-config", str(make_config(folder, [bedlam_tree, agora, test]))]
    out = ["--out", str(folder / "shards"), "--workers", "0"]
    assert main(["subset-3dpw", *config, "--rows", "5"]) == 0
    # BEDLAM's tree has another folder for its npz than the others, so it has a file of its own.
    bedlam = folder / "bedlam_config.py"
    files = {"bedlam": str(bedlam_tree.npz)}
    bedlam.write_text(f"BEDLAM_ROOT = {str(bedlam_tree.root)!r}\nDATASET_FILES = [{{}}, {files}]\n")
    assert main(["build", "--dataset", "bedlam", "--data-config", str(bedlam), *out]) == 0
    assert main(["build", "--dataset", "agora", "--dataset", "3dpw_test_sub", *config, *out]) == 0
    return folder / "shards"


def config_of(shards: Path, **changes: Any) -> SimpleNamespace:
    """A config with ReFit's attributes; yacs gives the same."""
    stated = {"LIST": ["bedlam", "agora"], "PARTITION": [0.75, 0.25], "SHARDS": str(shards)}
    return SimpleNamespace(
        IMG_RES=256,
        NUM_WORKERS=2,
        SEED_VALUE=3,
        DATASET=SimpleNamespace(**(stated | changes)),
        TRAIN=SimpleNamespace(BATCH_SIZE=8),
    )


class Trainer:
    """ReFit's loop, as far as its loaders see it."""

    def __init__(self, loaders: list[Any]) -> None:
        self.train_loader, self.test_loader = loaders
        self.seen: list[list[int]] = []

    def step(self, batch: dict[str, Any]) -> None:
        """Move to the device what is a tensor, and use it."""
        moved = {k: v.to("cpu") for k, v in batch.items() if type(v) is torch.Tensor}
        assert moved["img"].shape == (8, 3, 256, 256)
        assert torch.isfinite(moved["img"]).all()
        self.seen.append(moved["sample_index"].tolist())

    def train(self, steps: int) -> dict[str, Any] | None:
        """Epochs until so many steps are done; the checkpoint of the last one."""
        checkpoint = None
        while len(self.seen) < steps:
            for index, batch in enumerate(self.train_loader):
                self.step(batch)
                perm = self.train_loader.sampler.dataset_perm
                checkpoint = {"batch_idx": index, "dataset_perm": copy.deepcopy(perm)}
                if len(self.seen) == steps:
                    return checkpoint
            self.train_loader.re_init()
        return checkpoint


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_the_trainer_goes_on_where_it_was_stopped(shards: Path, tmp_path: Path, stop: int) -> None:
    """Train, checkpoint through torch.save, begin anew in a new trainer: the same batches."""

    def fresh() -> Trainer:
        return Trainer(get_dataloaders(config_of(shards), options=QUICK, eval_joints="none"))

    quiet = fresh()
    assert len(quiet.train_loader) == 5
    quiet.train(12)
    stopped = fresh()
    torch.save(stopped.train(stop), tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = fresh()
    resumed.train_loader.load_checkpoint(**saved)
    resumed.train(12 - stop)
    assert stopped.seen + resumed.seen == quiet.seen


def test_the_validation_set_is_as_the_trainer_reads_it(shards: Path, tmp_path: Path) -> None:
    """Each row once, in order, the last batch partial; 17 joints and vertices from the pelvis."""
    write_bodies(tmp_path)
    _, test_loader = get_dataloaders(
        config_of(shards),
        smpl_model_dir=str(tmp_path),
        joint_regressor=str(tmp_path / "J_regressor_h36m.npy"),
    )
    assert len(test_loader.dataset) == 5
    assert test_loader.dataset.J_regressor.shape == (17, 6890)
    for _ in range(2):  # a validation is run again and again
        batches: list[dict[str, Any]] = list(test_loader)
        assert len(batches) == len(test_loader) == 1
        (batch,) = batches
        assert batch["sample_index"].tolist() == list(range(5))
        assert batch["pose_3d"].shape == (5, 17, 4)
        assert batch["gt_verts"].shape == (5, 6890, 3)
        torch.testing.assert_close(batch["pose_3d"][:, 0, :3], torch.zeros(5, 3))
        regressed = torch.einsum("jv,nvc->njc", test_loader.dataset.J_regressor, batch["gt_verts"])
        torch.testing.assert_close(batch["pose_3d"][:, :, :3], regressed, atol=1e-4, rtol=0)
        assert (batch["flip"] == 0).all()
        assert (batch["sc"] == 1).all()


def test_a_validation_without_meshes_says_so(shards: Path, tmp_path: Path) -> None:
    """Missing files are named with their place; "none" goes on without them."""
    with pytest.raises(UsageError, match="SMPL_MALE"):
        get_dataloaders(config_of(shards), smpl_model_dir=str(tmp_path))
    write_bodies(tmp_path)
    regressor = tmp_path / "J_regressor_h36m.npy"
    _, test_loader = get_dataloaders(
        config_of(shards), eval_joints="none", joint_regressor=regressor
    )
    torch.testing.assert_close(
        test_loader.dataset.J_regressor, torch.from_numpy(np.load(regressor)).float()
    )
    assert "gt_verts" not in next(iter(test_loader))


def test_a_regressor_that_is_not_there_is_said_before_training(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the loaders are made, and when the trainer asks for it, which is its first validation;
    a trainer that never asks goes on without.
    """
    _, test_loader = get_dataloaders(
        config_of(shards), eval_joints="none", joint_regressor=tmp_path / "r.npy"
    )
    (line,) = [one.getMessage() for one in caplog.records if "regressor" in one.getMessage()]
    assert "J_regressor_h36m.npy of SPIN's data package" in line
    with pytest.raises(UsageError, match="H36M joint regressor is missing"):
        _ = test_loader.dataset.J_regressor
    assert len(list(test_loader)) == 1


@pytest.mark.parametrize(("given", "last"), [(None, 4), (False, 4), (True, 8)])
def test_an_epochs_last_batch_is_kept_unless_told_otherwise(
    shards: Path, given: bool | None, last: int
) -> None:
    """Also with other options, which say nothing of it."""
    options = StreamOptions(epoch_samples=20, drop_last=given, num_workers=0, on_error="replace")
    train_loader, _ = get_dataloaders(config_of(shards), options=options, eval_joints="none")
    sizes = [len(batch["img"]) for batch in train_loader]
    assert sizes == [8, 8, 4][: len(sizes)]
    assert sizes[-1] == last
    assert train_loader.options.on_error == "replace"


def test_a_set_smaller_than_a_batch_is_an_epoch(shards: Path) -> None:
    """As in ReFit: one batch, of all that there is."""
    options = StreamOptions(image="normalized")
    config = config_of(shards, LIST=["agora"], PARTITION=[1.0])
    config.TRAIN.BATCH_SIZE = 64
    config.NUM_WORKERS = 0
    train_loader, _ = get_dataloaders(config, options=options, eval_joints="none")
    rows = len(ShardSet.open(str(shards / "agora")))
    for _ in range(2):
        (batch,) = train_loader
        assert sorted(batch["sample_index"].tolist()) == list(range(rows))


def test_ranks_cover_the_validation_set_once(shards: Path) -> None:
    """Three ranks, five rows: each row on exactly one of them, in order."""
    found: list[int] = []
    for rank in range(3):
        options = StreamOptions(rank=rank, world_size=3)
        _, loader = get_dataloaders(config_of(shards), options=options, eval_joints="none")
        found += [index for batch in loader for index in batch["sample_index"].tolist()]
    assert found == list(range(5))


@pytest.mark.parametrize(
    "changed",
    [
        {"where": {"bedlam": pc.field("scale") > 0}},
        {"where": {"bedlam": pc.field("source_row") < 12, "agora": pc.field("has_smpl")}},
        {"policy": AugmentationPolicy(rot_clip=10.0, flip=1.0)},
        {"policy": AugmentationPolicy(scale_sigma=0), "occluders": "OCCLUDERS"},
        {"mixing": "iid", "seed": 5},
        {"epoch_samples": 9},
        {"epoch_samples": 9, "drop_last": False},
        {"drop_last": False},
        {"window": 1},
        {"on_error": "replace"},
        {"image": "uint8"},
        {"batch_size": 3},
        {"prefetch": 1, "num_workers": 1},
        {"augment": False},
        {"cache": "CACHE", "cache_bytes": "1GB"},
        {"rank": 0, "world_size": 1},
    ],
    ids="-".join,
)
def test_options_of_training_leave_the_validation_alone(
    shards: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Each in turn: the same batches to the byte, as if nothing had been given."""
    (tmp_path / "occluders.arrow").write_bytes(occluder_bytes([np.full((9, 9, 4), 255, np.uint8)]))
    places = {"CACHE": str(tmp_path / "cache"), "OCCLUDERS": str(tmp_path / "occluders.arrow")}
    given: dict[str, Any] = {
        name: places.get(value, value) if isinstance(value, str) else value
        for name, value in changed.items()
    }
    plain, told = (
        get_dataloaders(config_of(shards), options=StreamOptions(**options), eval_joints="none")[1]
        for options in ({}, given)
    )
    assert len(told) == len(plain) == 1
    found, expected = all_items(told), all_items(plain)
    assert len(found) == 5
    assert found == expected


def spoilt_validation(shards: Path, tmp_path: Path) -> Path:
    """The shards, with a damaged sample in the validation set."""
    copied = Path(shutil.copytree(shards, tmp_path / "shards"))
    sample = ShardSet.open(str(copied / "3dpw_test_sub"))[2]
    (tar,) = (copied / "3dpw_test_sub").glob("*.tar")
    data = bytearray(tar.read_bytes())
    data[int(sample["jpg_offset"]) + int(sample["jpg_length"]) // 2] ^= 1
    tar.write_bytes(data)
    return copied


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_evaluation_never_counts_a_neighbour_twice(
    shards: Path, tmp_path: Path, num_workers: int
) -> None:
    """A damaged sample raises, named, though training replaces; also in a loader of one's own."""
    copied = spoilt_validation(shards, tmp_path)
    options = StreamOptions(on_error="replace", num_workers=num_workers, epoch_samples=40)
    _, from_config = get_dataloaders(config_of(copied), options=options, eval_joints="none")
    name = "3dpw_test_sub"
    own = EvaluationLoader(name, str(copied / name), options)
    for loader in (from_config, own):
        with pytest.raises(ShardError, match=rf"{name}: shard .*key {name}-.*crc32c"):
            list(loader)


def test_an_evaluation_of_ones_own_may_be_filtered(shards: Path) -> None:
    """By a filter on its own set: the rows that pass, in the npz's order."""
    name = "3dpw_test_sub"
    options = StreamOptions(
        where={name: pc.field("source_row") != 3}, num_workers=0, rank=0, world_size=1
    )
    loader = EvaluationLoader(name, str(shards / name), options)
    assert [row for batch in loader for row in batch["sample_index"].tolist()] == [0, 1, 2, 4]


def test_crops_that_came_as_crops_are_rendered_as_they_are(shards: Path) -> None:
    """Without augmentation, from the index and from the tars; they hold nothing wider."""
    folder = shards / "3dpw_test_sub"
    (batch,) = EvaluationLoader(
        "3dpw_test_sub", str(folder), StreamOptions(num_workers=0, rank=0, world_size=1)
    )
    urls = [str(path) for path in folder.glob("*.tar")]
    from_tars = list(wds.WebDataset(urls, shardshuffle=False).map(webdataset_item()))
    samples: Any = ShardSet.open(str(folder))
    for sample, item in zip(samples, from_tars, strict=True):
        expected = batch["img"][int(sample["source_row"])]
        assert torch.equal(render(sample, Augmentation())["img"], expected)
        assert torch.equal(item["img"], expected)
        with pytest.raises(UsageError, match=r"sc=1\.2 shows .*scale_clip"):
            render(sample, Augmentation(sc=1.2))


def test_an_order_from_a_damaged_index_is_refused(shards: Path, tmp_path: Path) -> None:
    """Every byte of the column that gives an evaluation its order: one flipped bit is an error."""
    name = "3dpw_test_sub"
    folder = Path(shutil.copytree(shards / name, tmp_path / name))
    rows = ShardSet.open(str(folder)).shard(0).view("source_row")
    (index,) = folder.glob("*-000000.arrow")
    data = index.read_bytes()
    begin = data.index(rows.tobytes())
    options = StreamOptions(num_workers=0, rank=0, world_size=1)
    for at in range(begin, begin + rows.nbytes):
        index.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ShardError, match="columns or metadata have changed"):
            EvaluationLoader(name, str(folder), options)


def test_a_checkpoint_of_refits_own_loader_is_refused(shards: Path) -> None:
    """A list of indices cannot say where our stream is."""
    train_loader, _ = get_dataloaders(config_of(shards), eval_joints="none", options=QUICK)
    with pytest.raises(UsageError, match=r"ReFit's own loader.*TRAIN\.IS_FINETUNE: True beside"):
        train_loader.load_checkpoint(10, [5, 2, 9])


def bad_configs(shards: Path) -> Iterator[tuple[Any, type[Exception], str]]:
    """Configs that cannot work, with what must be said."""
    yield SimpleNamespace(IMG_RES=256), UsageError, "DATASET"
    yield config_of(shards, PARTITION=[0.5, 0.4]), UsageError, r"sum to 1.*0\.9"
    yield config_of(shards, PARTITION=[3, -1]), UsageError, "agora: the ratio must be"
    yield config_of(shards, PARTITION=[1.0]), UsageError, "2 names.*1 ratios"
    yield config_of(shards / "nowhere"), UsageError, "no finished shards"


def test_bad_input_is_one_clear_line(shards: Path, tmp_path: Path) -> None:
    """Exit code 2 in the error, one line, before anything starts."""
    for config, kind, said in bad_configs(shards):
        with pytest.raises(kind, match=said) as caught:
            get_dataloaders(config, eval_joints="none", options=QUICK)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2  # type: ignore[attr-defined]
    for name in ("bedlam", "agora"):
        (tmp_path / name).mkdir()
        for file in (shards / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match="3dpw_test_sub"):
        get_dataloaders(config_of(tmp_path), eval_joints="none", options=QUICK)
    manifest = tmp_path / "agora" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 3', '"format_version": 9'))
    with pytest.raises(FormatError, match="format_version must be 3, got 9"):
        get_dataloaders(config_of(tmp_path), eval_joints="none", options=QUICK)


def test_a_transform_and_a_split_are_of_the_training_alone(shards: Path) -> None:
    """The test loader reads each row as it is; both are in the trainer's checkpoint."""

    def mark(batch: dict[str, Any], draws: Any) -> dict[str, Any]:
        return {**batch, "drawn": draws(2)}

    options = replace(
        QUICK, transform=BatchTransform(name="mark", function=mark), split=("train", 0.5, 1)
    )
    train, test = get_dataloaders(config_of(shards), options=options, eval_joints="none")
    assert next(iter(train))["drawn"].shape == (8, 2)
    (batch,) = test
    assert "drawn" not in batch
    assert batch["sample_index"].tolist() == list(range(5))
    state = train.sampler.dataset_perm
    assert state["transform"] == "mark"
    plain, _ = get_dataloaders(
        config_of(shards), options=QUICK, eval_joints="none", changed=("transform",)
    )
    with pytest.raises(UsageError, match=r"bedlam\.rows is \d+, this loader's is"):
        plain.load_checkpoint(0, state)
