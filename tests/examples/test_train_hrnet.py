"""The training example, tiny: it learns, masks, loads published weights and goes on exactly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from benchmarks.trees import Tree
from examples.hrnet_losses import LossWeights, rotations_from_axis_angle
from examples.hrnet_model import (
    HumanModel,
    Prediction,
    find_pretrained,
    from_hips,
    load_pretrained,
    rotations_from_6d,
)
from examples.hrnet_training import H36M_TO_SPIN, Trainer, evaluate
from examples.train_hrnet import main
from refit_shard import StreamOptions
from refit_shard.cli import main as refit_shard
from refit_shard.loaders.refit.trainer import TrainLoader, get_dataloaders
from refit_shard.shards_spec.errors import UsageError

BACKBONE = "hrnet_w18_small"
LOSS = {"KPT2D": 5.0, "KPT3D": 5.0, "SMPL": 1.0, "V3D": 1.0}
WEIGHTS = LossWeights(kpt2d=5.0, kpt3d=5.0, smpl=1.0)
CPU = torch.device("cpu")

# A few tensors of every kind, named as in the published files.
PUBLISHED = (
    *("conv1.weight", "bn2.running_mean", "layer1.0.conv3.weight", "layer1.0.downsample.1.bias"),
    *("transition1.0.0.weight", "transition1.1.0.1.running_var", "transition3.3.0.0.weight"),
    *("stage2.0.branches.1.0.conv1.weight", "stage2.0.fuse_layers.0.1.0.weight"),
    *("stage3.0.fuse_layers.2.0.1.0.weight", "stage4.0.branches.3.1.bn2.bias"),
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """So small a network is no faster on two, and much slower where others use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config(
    bedlam_tree: Tree, pw3d_tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A config of 64 px crops from shards of bedlam; 3DPW's frames stand in for validation."""
    folder = tmp_path_factory.mktemp("train") / "shards"
    for name, tree in (("made", bedlam_tree), ("validation", pw3d_tree)):
        what = ["--npz", str(tree.npz), "--root", str(tree.root), "--name", name, "--limit", "12"]
        how = ["--out", str(folder), "--workers", "0", "--box-px", "64", "--max-bad", "1"]
        assert refit_shard(["build", *what, *how]) == 0
    (folder / "validation").rename(folder / "3dpw_test_sub")
    return {
        "IMG_RES": 64,
        "NUM_WORKERS": 1,
        "SEED_VALUE": 3,
        "DATASET": {"LIST": ["made"], "PARTITION": [1.0], "SHARDS": str(folder)},
        "LOSS": LOSS,
        "TRAIN": {"BATCH_SIZE": 4},
    }


@pytest.fixture(scope="module")
def backbone() -> HumanModel:
    """A model that no test changes."""
    torch.manual_seed(0)
    return HumanModel(BACKBONE)


def loader_of(config: dict[str, Any]) -> TrainLoader:
    """The training loader, as the program makes it."""
    options = StreamOptions(image="uint8")
    train_loader, _ = get_dataloaders(config, options=options, eval_joints="none")
    assert isinstance(train_loader, TrainLoader)
    return train_loader


def trainer_of(config: dict[str, Any], *, lr: float = 1e-3, amp: bool = False) -> Trainer:
    """A trainer that begins with the same weights every time."""
    torch.manual_seed(0)
    return Trainer.make(HumanModel(BACKBONE), WEIGHTS, loader_of(config), CPU, lr=lr, amp=amp)


def test_every_loss_falls_when_one_batch_is_overfitted(config: dict[str, Any]) -> None:
    trainer = trainer_of(config)
    batch = next(iter(trainer.loader))
    losses = [trainer.train_step(batch) for _ in range(15)]
    first, last = losses[0], losses[-1]
    assert last.total < 0.3 * first.total
    assert last.kpt2d < 0.3 * first.kpt2d
    assert last.kpt3d < 0.5 * first.kpt3d
    assert last.smpl < first.smpl


def test_bfloat16_begins_as_float32_and_learns(config: dict[str, Any]) -> None:
    """The losses are float32 in both."""
    exact, mixed = trainer_of(config), trainer_of(config, amp=True)
    batch = next(iter(exact.loader))
    losses = [mixed.train_step(batch) for _ in range(6)]
    torch.testing.assert_close(losses[0], exact.train_step(batch), rtol=0.02, atol=1e-3)
    assert all(value.dtype == torch.float32 for value in losses[0])
    assert losses[-1].total < 0.9 * losses[0].total


def perfect(count: int) -> tuple[Prediction, dict[str, Any]]:
    """A prediction, and labels that it fits exactly."""
    rng = torch.Generator().manual_seed(1)
    pose = torch.randn(count, 72, generator=rng)
    predicted = Prediction(
        rotations=rotations_from_axis_angle(pose.reshape(count, 24, 3)),
        betas=torch.randn(count, 10, generator=rng),
        camera=torch.tensor([0.8, 0.1, -0.2]).expand(count, 3),
        joints=from_hips(torch.randn(count, 24, 3, generator=rng)),
    )
    keypoints = torch.ones(count, 49, 3)
    keypoints[:, 25:, :2] = 0.8 * predicted.joints[:, :, :2] + torch.tensor([0.1, -0.2])
    moved = predicted.joints + torch.tensor([0.3, -0.1, 2.0])  # the label's origin is not the hips
    batch = {
        "pose": pose,
        "betas": predicted.betas.clone(),
        "keypoints": keypoints,
        "pose_3d": torch.cat([moved, torch.ones(count, 24, 1)], dim=2),
        "has_smpl": torch.ones(count, dtype=torch.float64),
        "has_pose_3d": torch.ones(count, dtype=torch.int64),
    }
    return predicted, batch


def test_losses_of_a_perfect_and_of_a_known_error() -> None:
    """Zero, then ReFit's means: of 49 x 2 values, of 24 x 3, of 24 x 9 and a thousandth of 10."""
    predicted, batch = perfect(3)
    for loss in WEIGHTS(predicted, batch):
        torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)
    camera = predicted.camera + torch.tensor([0.0, 0.5, 0.0])
    wrong = predicted._replace(camera=camera, betas=predicted.betas + 2.0)
    losses = WEIGHTS(wrong, batch)
    torch.testing.assert_close(losses.kpt2d, torch.tensor(0.25 * 24 / 98))
    torch.testing.assert_close(losses.kpt3d, torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(losses.smpl, torch.tensor(0.004))
    torch.testing.assert_close(losses.total, 5 * losses.kpt2d + losses.smpl, atol=1e-6, rtol=0)
    wrong = predicted._replace(joints=predicted.joints + torch.tensor([0.0, 0.0, 0.1]))
    torch.testing.assert_close(WEIGHTS(wrong, batch).kpt3d, torch.tensor(0.01 / 3))


def without_labels(batch: dict[str, Any], row: int) -> None:
    """Take away all labels of a row, and leave values there that would be seen."""
    batch["has_smpl"][row] = 0
    batch["has_pose_3d"][row] = 0
    batch["keypoints"][row] = torch.tensor([7.0, -7.0, 0.0])


def test_rows_without_labels_have_no_gradient() -> None:
    """And a batch without any is finite, with zero gradients everywhere."""
    _, batch = perfect(2)
    without_labels(batch, 1)
    leaves = [
        torch.randn(shape, requires_grad=True)
        for shape in ((2, 24, 3, 3), (2, 10), (2, 3), (2, 24, 3))
    ]
    WEIGHTS(Prediction(*leaves), batch).total.backward()  # type: ignore[no-untyped-call]
    for leaf in leaves:
        gradient: Tensor | None = leaf.grad
        assert gradient is not None
        assert gradient[0].abs().sum() > 0
        assert (gradient[1] == 0).all()
        leaf.grad = None
    without_labels(batch, 0)
    total = WEIGHTS(Prediction(*leaves), batch).total
    assert total == 0
    total.backward()  # type: ignore[no-untyped-call]
    assert all(leaf.grad is not None and (leaf.grad == 0).all() for leaf in leaves)


def test_a_joint_of_confidence_0_adds_nothing() -> None:
    """A single joint is left out; a hip is the origin of its row, which is left out whole."""
    predicted, batch = perfect(2)
    batch["pose_3d"][0, 11] = torch.tensor([9.0, 9.0, 9.0, 0.0])
    batch["pose_3d"][1, 2] = torch.tensor([9.0, 9.0, 9.0, 0.0])
    assert WEIGHTS(predicted, batch).kpt3d < 1e-6


def test_rotations() -> None:
    """Both ways lead to the same matrices, at 0, and at half a turn."""
    vectors = torch.tensor([[0.0, 0, 0], [torch.pi, 0, 0], [0, 0, torch.pi / 2], [0.3, -2, 1]])
    made = rotations_from_axis_angle(vectors)
    torch.testing.assert_close(made[0], torch.eye(3))
    torch.testing.assert_close(made[1], torch.diag(torch.tensor([1.0, -1, -1])))
    torch.testing.assert_close(made[2], torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    columns = torch.cat([2.0 * made[:, :, 0], made[:, :, 1] + 0.5 * made[:, :, 0]], dim=1)
    torch.testing.assert_close(rotations_from_6d(columns), made)


def published(model: HumanModel, path: Path) -> dict[str, Tensor]:
    """A file as HRNet's authors publish: only the first branch is fused last, and a heat map."""
    last = f"stage4.{len(model.backbone.stage4) - 1}.fuse_layers."
    tensors = {
        name: torch.randn_like(value)
        for name, value in model.backbone.state_dict().items()
        if "num_batches" not in name and (not name.startswith(last) or name.startswith(last + "0."))
    }
    torch.save(tensors | {"final_layer.weight": torch.zeros(17, 16, 1, 1)}, path)
    return tensors


def test_published_weights_are_loaded_by_name(backbone: HumanModel, tmp_path: Path) -> None:
    model = HumanModel(BACKBONE)
    tensors = published(backbone, tmp_path / "pose.pth")
    matched = load_pretrained(model.backbone, tmp_path / "pose.pth")
    assert set(matched.both) == set(tensors)
    assert set(matched.both) >= set(PUBLISHED)
    assert matched.only_file == ("final_layer.weight",)
    assert matched.only_model
    assert all(".fuse_layers." in name for name in matched.only_model)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    both, only_model, only_file = matched.lines()
    assert "conv1 (1), bn1 (4)" in both
    assert "stage4" in only_model
    assert only_file.endswith("not in the model 1: final_layer (1)")


def test_the_published_file_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_pretrained("hrnet_w48") is None
    (tmp_path / "data/pretrain").mkdir(parents=True)
    for crop in ("384x288", "256x192"):
        path = Path(f"data/pretrain/pose_hrnet_w48_{crop}.pth")
        path.touch()
        assert find_pretrained("hrnet_w48") == path
    assert find_pretrained("hrnet_w32") is None


def test_foreign_weights_are_refused(backbone: HumanModel, tmp_path: Path) -> None:
    """Of another network, of another width, and no weights at all: one line each."""
    path = tmp_path / "other.pth"
    torch.save({"layer9.weight": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match=r"none of its 1 entries \(layer9.weight\)"):
        load_pretrained(backbone.backbone, path)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(UsageError, match=r"conv1.weight must be \(64, 3, 3, 3\), got .*7, 7"):
        load_pretrained(backbone.backbone, path)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(UsageError, match="must hold a dictionary, got list"):
        load_pretrained(backbone.backbone, path)
    torch.save({"conv1.weight": HumanModel}, path)
    with pytest.raises(UsageError, match="file of plain tensors") as caught:
        load_pretrained(backbone.backbone, path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"no weights")
    with pytest.raises(UsageError, match="file of plain tensors"):
        load_pretrained(backbone.backbone, path)
    with pytest.raises(UsageError, match="No such file"):
        load_pretrained(backbone.backbone, tmp_path / "missing.pth")


def train(trainer: Trainer, steps: int, seen: list[list[int]], checkpoint: Path | None) -> None:
    """Run to ``steps`` in all, and note the rows of every batch."""
    step = trainer.train_step

    def noting(batch: dict[str, Any]) -> Any:
        seen.append(batch["sample_index"].tolist())
        return step(batch)

    trainer.train_step = noting  # type: ignore[method-assign]
    trainer.run(steps, checkpoint=checkpoint, save_every=1000, log_every=100)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_checkpoint_goes_on_at_the_next_batch(
    config: dict[str, Any], tmp_path: Path, stop: int
) -> None:
    """In the middle of an epoch and at its end: the same batches, and the same weights after."""
    quiet, seen = trainer_of(config), list[list[int]]()
    assert len(quiet.loader) == 3
    train(quiet, 5, seen, None)
    stopped, parts = trainer_of(config), list[list[int]]()
    train(stopped, stop, parts, tmp_path / "run/checkpoint.pt")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]
    resumed = trainer_of(config)
    resumed.resume(tmp_path / "run/checkpoint.pt")
    assert resumed.step == stop
    train(resumed, 5, parts, None)
    assert parts == seen
    for name, value in quiet.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, msg=name)


def test_h36m_joints_are_compared_with_spins(config: dict[str, Any]) -> None:
    """The error is that of 14 joints, from the hips; rows of 24 joints need has_pose_3d."""
    trainer = trainer_of(config)
    images = torch.randn(2, 3, 64, 64)
    trainer.model.eval()
    with torch.no_grad():
        joints = trainer.predict(images).joints
    labels = torch.zeros(2, 17, 4)
    labels[:, H36M_TO_SPIN, :3] = joints[:, :14] + 1.0
    labels[:, :, 3] = 1.0
    error, rows = evaluate(trainer, [{"img": images, "pose_3d": labels}])
    assert rows == 2
    assert error < 0.01
    labels = torch.cat([joints * 2.0, torch.ones(2, 24, 1)], dim=2)
    known = torch.tensor([1, 0])
    error, rows = evaluate(trainer, [{"img": images, "pose_3d": labels, "has_pose_3d": known}])
    assert rows == 1
    assert error == pytest.approx(1000 * joints[0].norm(dim=1).mean().item(), rel=1e-4)


def test_the_command(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trains, says what it does, measures, and goes on from its checkpoint."""
    shards = config["DATASET"]["SHARDS"]
    stated = config | {"DATASET": config["DATASET"] | {"SHARDS": "nowhere"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stated))
    checkpoint = tmp_path / "checkpoint.pt"
    words = ["--config", str(tmp_path / "config.yaml"), "--model", BACKBONE, "--log-every", "1"]
    words += ["--checkpoint", str(checkpoint), "--workers", "0", "--device", "cpu"]
    assert main([*words, "--steps", "1"]) == 2
    assert "no finished shards" in capsys.readouterr().err
    words += ["--shards", shards, "--batch-size", "5"]
    assert main([*words, "--steps", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("V3D ignored" in line for line in lines)
    assert any("random weights" in line for line in lines)
    (step,) = [line for line in lines if line.startswith("step 1/1  loss ")]
    assert "samples/s  waiting " in step
    assert "mean joint error" in lines[-1]
    assert main([*words, "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("continuing after step 1" in line for line in lines)
    assert sum(line.startswith("step ") for line in lines) == 1


def test_wrong_use_is_one_line(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line, nothing begun."""
    path, other = tmp_path / "config.yaml", tmp_path / "other.pt"
    path.write_text(yaml.safe_dump(config))
    torch.save({"version": 9}, other)
    tiny = ["--config", str(path), "--model", BACKBONE, "--steps", "1"]
    cases = [
        ([*tiny, "--model", "resnet50"], "--model: must be one of timm's hrnet_"),
        ([*tiny, "--device", "quantum"], "--device quantum"),
        ([*tiny, "--pretrained", "missing.pth"], "missing.pth: No such file"),
        ([*tiny, "--checkpoint", str(other)], "not a checkpoint"),
        ([*tiny, "--eval-joints", "smpl"], "SMPL_"),
        ([*tiny, "--checkpoint", str(other / "inside.pt")], "--checkpoint"),
        (["--config", "missing.yaml"], "missing.yaml: No such file"),
    ]
    for words, said in cases:
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    for section, said in ((None, "must be a section"), ({"KPT2D": -1}, r"LOSS.KPT2D"), ({}, "one")):
        with pytest.raises(UsageError, match=said):
            LossWeights.of(section)
