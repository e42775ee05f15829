"""Streams with all that ReFit's policy lacks: keys, pixels, determinism, states."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds

from refit_shard import (
    AugmentationPolicy,
    EvaluationLoader,
    StreamOptions,
    finalize,
    render,
    webdataset_item,
)
from refit_shard.loaders.items import pixels
from refit_shard.loaders.items.draws import select, single
from refit_shard.loaders.items.effects import LOOK
from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.items.policy import draw
from refit_shard.loaders.stream import batches as made_of
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.own import RESERVED
from tests.loaders.streams import MIX, all_items, draws_of, sources, stream
from tests.small import samples_of

ALL = AugmentationPolicy(
    upper_body=0.3, lower_body=0.3, downscale=0.4, blur=0.4, gray=0.3, tone=0.5
)
KEYS = set(LOOK.names or ())


def test_keys_come_with_what_is_asked_for(shards: Path) -> None:
    """Each says what was drawn; without any of it a batch is as ever."""
    plain = next(iter(stream(shards)))
    assert not KEYS & plain.keys()
    batch = next(iter(stream(shards, policy=AugmentationPolicy(gray=0.5))))
    assert batch.keys() == plain.keys() | KEYS
    assert {name: batch[name].dtype for name in KEYS} == {
        **dict.fromkeys(("body_crop", "gray"), torch.int64),
        **dict.fromkeys(("downscale", "blur", "brightness", "contrast"), torch.float32),
    }
    gray = batch["gray"].bool()
    assert 0 < int(gray.sum()) < 12
    made = batch["img"][gray].permute(0, 2, 3, 1).numpy() * STD + MEAN
    assert np.ptp(made, axis=-1).max() < 1e-5, "the channel factors give it no colour"
    for name, value in plain.items():
        if name != "img":
            same = batch[name] == value
            assert same if isinstance(same, bool) else same.all(), name
    assert torch.equal(batch["img"][~gray], plain["img"][~gray])
    assert not torch.equal(batch["img"][gray], plain["img"][gray])
    assert KEYS <= RESERVED, "no own label may be called so"
    first = next(iter(stream(shards, policy=ALL, augment=False)))
    assert not KEYS & first.keys()


def test_the_stream_is_that_of_render(shards: Path) -> None:
    """Each item, from its position's augmentation alone."""
    batches = list(stream(shards, policy=ALL, image="uint8"))
    drawn = draw(ALL, 0, 0, 36, objects=0, res=32)
    halves = 0
    for place, (_, sample, _) in enumerate(draws_of(shards, 0, 36)):
        batch, index = batches[place // 12], place % 12
        options = stream(shards, image="uint8").options
        item = render(sample, single(select(drawn, [place])), options)
        for name in ("img", "keypoints", "center", "scale", "pose_3d", *KEYS & item.keys()):
            assert torch.equal(batch[name][index], item[name]), (place, name)
        halves += int(batch["body_crop"][index] > 0)
    assert halves > 3


def test_threads_and_resume_change_nothing(shards: Path) -> None:
    """One stream on 0, 2 and 5 threads, and after a state that was taken in its middle."""
    expected = all_items(stream(shards, policy=ALL))
    for workers in (2, 5):
        assert all_items(stream(shards, policy=ALL, num_workers=workers)) == expected
    loader = stream(shards, policy=ALL)
    next(iter(loader))
    again = stream(shards, policy=ALL)
    again.load_state_dict(loader.state_dict())
    assert all_items(again) == expected[12:]


def test_a_state_of_another_policy_is_refused(shards: Path) -> None:
    """By the field's name; on purpose it may change."""
    state = stream(shards, policy=ALL).state_dict()
    other = stream(shards, policy=replace(ALL, blur_sigma=(0.5, 3.0)))
    with pytest.raises(
        UsageError, match=r"policy\.blur_sigma is \[0\.5, 2\.0\], .* \[0\.5, 3\.0\]"
    ):
        other.load_state_dict(state)
    other.load_state_dict(state, changed=("policy",))


@pytest.mark.parametrize("image", ["normalized", "bfloat16"])
def test_finalize_gives_what_the_loader_gives(shards: Path, image: Any) -> None:
    """Effects are on the uint8 image, factors and normalisation come after."""
    for plain, whole in zip(
        stream(shards, policy=ALL, image="uint8"),
        stream(shards, policy=ALL, image=image),
        strict=True,
    ):
        made = finalize(plain, "cpu", image=image)
        assert made.keys() == whole.keys()
        assert torch.equal(made["img"], whole["img"])


def test_a_damaged_sample_is_replaced_by_one_with_its_own_box(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place keeps its draws; the box is about the other row's joints."""
    real: Any = pixels.make_images
    failed: list[bool] = []

    def once(*args: Any) -> Any:
        found = real(*args)
        if not failed:
            failed.append(True)
            found[3] = UsageError("planted")
        return found

    monkeypatch.setattr(made_of, "make_images", once)
    loader = stream(shards, policy=replace(ALL, upper_body=1.0, lower_body=0.0), on_error="replace")
    batch = next(iter(loader))
    assert loader.stats()["replaced"] == 1
    name, row = batch["dataset_name"][3], int(batch["sample_index"][3])
    drawn = draw(loader.options.policy, 0, 0, 12, objects=0, res=32)
    (sample,) = [one for one in samples_of(shards / name) if one["source_row"] == row]
    item = render(sample, single(select(drawn, [3])), loader.options)
    for key in ("img", "keypoints", "center", "scale", "body_crop"):
        assert torch.equal(batch[key][3], item[key]), key


def test_webdataset_items_have_one_set_of_keys(shards: Path) -> None:
    """Whatever is drawn of each, so that they collate."""
    tar = next((shards / "bedlam").glob("*.tar"))
    options = stream(shards).options
    items = webdataset_item(ALL, options=options)
    found = list(wds.WebDataset(str(tar), shardshuffle=False).decode().map(items))
    assert len(found) > 4
    assert len({frozenset(item) for item in found}) == 1
    assert found[0].keys() >= KEYS
    assert len({float(item["blur"]) for item in found}) > 1


def test_an_evaluation_shows_whole_bodies(shards: Path) -> None:
    """It augments nothing, whatever the policy."""
    name = next(iter(MIX))
    options = StreamOptions(batch_size=8, res=32, policy=ALL, num_workers=0)
    loader = EvaluationLoader(name, sources(shards)[name][0], options)
    assert not KEYS & next(iter(loader)).keys()
