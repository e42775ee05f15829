"""What a batch holds: as PyTorch's default collate would make it of ReFit's items."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from torch.utils.data import default_collate

from refit_shard import (
    Occluders,
    RenderOptions,
    ShardSet,
    StreamingLoader,
    StreamOptions,
    finalize,
    render,
)
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.shards_spec.errors import ShardError, UsageError
from tests.loaders.streams import Batch, all_names, draws_of, names, sources, stream

MEAN, STD = (np.array(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
CAMERAS = {"cam_R": (3, 3), "cam_t": (3,), "trans": (3,)}


def assert_same(batch: Batch, expected: Batch) -> None:
    """Equal keys, types, shapes, dtypes and values."""
    assert batch.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert batch[key].dtype == value.dtype, key
            assert batch[key].shape == value.shape, key
            assert torch.equal(batch[key], value), key
            assert batch[key].is_contiguous(), key
        else:
            assert type(batch[key]) is type(value) is list, key
            assert batch[key] == value, key


@pytest.mark.parametrize("image", ["normalized", "bfloat16", "uint8"])
@pytest.mark.parametrize("compat", [None, "refit"])
def test_a_batch_is_the_collated_items(shards: Path, image: str, compat: str | None) -> None:
    """The loader's batch is ``default_collate`` of ``render`` at its positions, key for key."""
    how: dict[str, Any] = {"image": image, "compat": compat, "res": 32}
    loader = stream(shards, **how)
    options = RenderOptions(**how)
    for step, batch in enumerate(loader):
        items = [
            render(sample, augmentation, options) | {"dataset_name": name}
            for name, sample, augmentation in draws_of(shards, 12 * step, 12)
        ]
        assert_same(batch, default_collate(items))


def test_keys_shapes_and_dtypes_are_refits(shards: Path) -> None:
    """The item's table, with PyTorch's types: Python floats collate to float64, ints to int64."""
    batch = next(iter(stream(shards, res=256)))
    wanted = {
        "img": (torch.float32, (12, 3, 256, 256)),
        "keypoints": (torch.float32, (12, 49, 3)),
        "pose": (torch.float32, (12, 72)),
        "betas": (torch.float32, (12, 10)),
        "pose_3d": (torch.float32, (12, 24, 4)),
        "scale": (torch.float32, (12,)),
        "center": (torch.float32, (12, 2)),
        "orig_shape": (torch.float32, (12, 2)),
        "img_focal": (torch.float32, (12,)),
        "img_center": (torch.float32, (12, 2)),
        **dict.fromkeys(("flip", "occ", "is_flipped"), (torch.int64, (12,))),
        **dict.fromkeys(("sample_index", "has_pose_3d"), (torch.int64, (12,))),
        **dict.fromkeys(("rot", "sc", "has_smpl"), (torch.float64, (12,))),
        "rot_angle": (torch.float32, (12,)),
        "gender": (torch.int32, (12,)),
    }
    tensors = {key: (v.dtype, tuple(v.shape)) for key, v in batch.items() if torch.is_tensor(v)}
    assert tensors == wanted
    assert batch.keys() - tensors.keys() == {"imgname", "dataset_name"}
    assert {type(name) for name in batch["imgname"] + batch["dataset_name"]} == {str}
    for name, has in zip(batch["dataset_name"], batch["has_pose_3d"].tolist(), strict=True):
        assert has == (name != "coco")


def test_labels_belong_to_their_rows(shards: Path) -> None:
    """What no augmentation changes is what the index says of that row of that dataset."""
    rows = {
        (name, int(sample["source_row"])): sample
        for name in sources(shards)
        for sample in ShardSet.open(str(shards / name))  # type: ignore[attr-defined]
    }
    for batch in stream(shards, num_workers=3, drop_last=False):
        for place, key in enumerate(names(batch)):
            sample = rows[key]
            assert batch["imgname"][place] == sample["imgname"]
            np.testing.assert_array_equal(batch["betas"][place], sample["betas"])
            np.testing.assert_array_equal(batch["orig_shape"][place], sample["orig_shape"])
            assert batch["gender"][place] == sample["gender"]


def test_extrinsics_only_where_all_sources_have_them(shards: Path) -> None:
    """A batch that mixes sources with and without cameras has none; default_collate would fail."""
    alone = next(iter(stream(shards, {"h36m": 1.0}, batch_size=4)))
    for key, shape in CAMERAS.items():
        assert alone[key].dtype == torch.float32
        assert alone[key].shape == (4, *shape)
    mixed = next(iter(stream(shards, {"h36m": 0.5, "bedlam": 0.5})))
    assert not mixed.keys() & CAMERAS.keys()
    assert "h36m" in mixed["dataset_name"]


def test_finalize_gives_the_normalized_batch(shards: Path) -> None:
    """uint8 finished on the device is the CPU's result within a level before normalisation."""
    plain, raw = stream(shards, res=64), stream(shards, res=64, image="uint8")
    for expected, batch in zip(plain, raw, strict=True):
        assert batch["img"].dtype == torch.uint8
        assert batch["img"].shape == (12, 64, 64, 3)
        assert batch["pn"].dtype == torch.float32
        finished = finalize(batch, "cpu")
        image = finished.pop("img")
        other = expected.pop("img")
        assert image.shape == other.shape
        assert image.dtype == other.dtype
        assert image.is_contiguous()
        off = (image - other).abs().numpy().transpose(0, 2, 3, 1) * STD
        assert off.max() <= 1 / 255 + 1e-6
        assert off.mean() < 1e-4
        assert_same(finished, expected)
        assert batch["img"].dtype == torch.uint8, "the batch that was given is not changed"


def rounded(values: torch.Tensor) -> list[int]:
    """The bits of float32 values rounded to the nearest bfloat16, ties to even: as integers."""
    bits = values.numpy().view(np.uint32).astype(np.uint64).ravel()
    low, kept = bits & 0xFFFF, bits >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (kept & 1 == 1))
    return [int(one) for one in kept + up]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bfloat16_is_float32_rounded(shards: Path, num_workers: int) -> None:
    """To the nearest, ties to even; labels are the same."""
    how: dict[str, Any] = {"num_workers": num_workers, "res": 40}
    plain, half = stream(shards, **how), stream(shards, image="bfloat16", **how)
    for expected, batch in zip(plain, half, strict=True):
        image, other = batch.pop("img"), expected.pop("img")
        assert image.dtype == torch.bfloat16
        assert image.shape == (12, 3, 40, 40)
        assert image.is_contiguous()
        bits = image.view(torch.int16).numpy().view(np.uint16).ravel().tolist()
        assert bits == rounded(other)
        assert_same(batch, expected)


def test_finalize_gives_bfloat16_if_asked(shards: Path) -> None:
    """Its own float32 rounded to the nearest; and nothing else than the two kinds."""
    raw = next(iter(stream(shards, image="uint8")))
    made, half = finalize(raw), finalize(raw, "cpu", image="bfloat16")
    image = half.pop("img")
    assert image.dtype == torch.bfloat16
    assert image.is_contiguous()
    assert image.view(torch.int16).numpy().view(np.uint16).ravel().tolist() == rounded(made["img"])
    del made["img"]
    assert_same(half, made)
    with pytest.raises(UsageError, match="image: must be one of"):
        finalize(raw, image="uint8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="uint8"):
        finalize(next(iter(stream(shards, image="bfloat16"))))


def test_finalize_refuses_another_batch(shards: Path) -> None:
    """A batch that is finished already is named as such."""
    batch = next(iter(stream(shards)))
    with pytest.raises(UsageError, match="uint8"):
        finalize(batch)


def test_occluders_are_pasted_where_occ_says(shards: Path, tmp_path: Path) -> None:
    """Items with occ = 1 differ from the run without occluders, the others do not."""
    red = np.zeros((60, 60, 4), np.uint8)
    red[..., 0] = red[..., 3] = 255
    file = tmp_path / "occluders.arrow"
    file.write_bytes(occluder_bytes([red]))
    assert len(Occluders(str(file))) == 1
    how: dict[str, Any] = {"image": "uint8", "res": 128, "epoch_samples": 48}
    occluded = 0
    for batch, plain in zip(
        stream(shards, occluders=str(file), **how), stream(shards, **how), strict=True
    ):
        assert names(batch) == names(plain)
        assert torch.equal(batch["rot"], plain["rot"])
        assert not plain["occ"].any()
        for place, occ in enumerate(batch["occ"].tolist()):
            changed = (batch["img"][place] != plain["img"][place]).any(dim=-1)
            assert bool(changed.any()) == bool(occ)
            assert (batch["img"][place][changed][:, 0] > 150).float().mean() > 0.9 or not occ
            occluded += occ
    assert 10 < occluded < 38


def test_without_occluders_it_is_said_once_or_refused(
    shards: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line in the log; an error under "required"; silence where nothing is augmented."""
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        loader = stream(shards)
        all_names(loader)
        all_names(loader)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["occlusion is off"]
    with pytest.raises(UsageError, match="import-occluders"):
        stream(shards, occluders="required")
    with pytest.raises(UsageError, match=r"nowhere\.arrow: no such file"):
        stream(shards, occluders="nowhere.arrow")
    caplog.clear()
    stream(shards, augment=False)
    assert not caplog.records


def test_filters_keep_only_what_they_say(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that fail never come, those that pass all come, and the log counts both."""
    table = {
        int(s["source_row"]): float(s["scale"])
        for s in ShardSet.open(str(shards / "bedlam"))  # type: ignore[attr-defined]
    }
    limit = float(np.median(list(table.values())))
    wanted = {row for row, scale in table.items() if scale > limit}
    where = {"bedlam": (pc.field("scale") > limit) & pc.field("has_smpl")}
    with caplog.at_level(logging.INFO, logger="refit_shard.loaders"):
        loader = stream(shards, where=where, epoch_samples=120, res=16)
    assert f"bedlam: where keeps {len(wanted)} of 40 rows" in caplog.text
    found = all_names(loader)
    assert {row for name, row in found if name == "bedlam"} == wanted
    assert {row for name, row in found if name == "agora"} == set(range(9))
    assert loader.stats()["passes"]["bedlam"] == pytest.approx(120 * 0.6 / len(wanted), abs=0.1)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"bedlam": pc.field("no_such_column") > 1}, "no_such_column"),
        ({"bedlam": pc.field("scale") > "big"}, "where"),
        ({"bedlam": "scale > 0.5"}, "where"),
        ({"bedlam": pc.field("scale") > 1e9}, "no rows under where"),
        ({"bedlem": pc.field("scale") > 0}, "'bedlem' is not a source; sources: bedlam, agora"),
    ],
)
def test_wrong_filters_are_refused(shards: Path, where: dict[str, object], named: str) -> None:
    """Before anything is read, in one line."""
    with pytest.raises(UsageError) as caught:
        stream(shards, where=where)
    assert named in str(caught.value)


def test_a_filter_over_a_damaged_index_is_refused(shards: Path, tmp_path: Path) -> None:
    """One bit of a number may keep or drop a row, so no filter is taken from such an index."""
    copied = Path(shutil.copytree(shards / "bedlam", tmp_path / "bedlam"))
    where = {"bedlam": pc.field("scale") > 0.0}
    stream(tmp_path, {"bedlam": 1.0}, where=where)
    index = sorted(copied.glob("bedlam-??????.arrow"))[1]
    data = index.read_bytes()
    scales = ShardSet.open(str(copied)).shard(1).view("scale").tobytes()
    at = data.index(scales)
    for byte in (0, 7, len(scales) - 1):
        index.write_bytes(data[: at + byte] + bytes([data[at + byte] ^ 64]) + data[at + byte + 1 :])
        with pytest.raises(ShardError, match=rf"{index.name}: the index's columns .*changed"):
            stream(tmp_path, {"bedlam": 1.0}, where=where)


def test_any_name_may_be_given_to_a_source(shards: Path) -> None:
    """The mapping's name is the batch's dataset_name; one folder may be two sources."""
    loader = StreamingLoader(
        {"a": (str(shards / "agora"), 0.5), "b": (f"file://{shards}/agora", 0.5)},
        StreamOptions(batch_size=8, num_workers=0, rank=0, world_size=1, res=16),
    )
    assert set(next(iter(loader))["dataset_name"]) == {"a", "b"}
