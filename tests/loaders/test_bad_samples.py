"""Damaged samples: named exactly, or replaced so that labels and pixels still belong together."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders import RenderOptions, render
from shards_spec import Sample, ShardSet
from shards_spec.errors import ShardError
from tests.loaders.remains import remains
from tests.loaders.streams import all_names, draws_of, items, names, stream


def spoil(shards: Path, sample: Sample, dataset: str) -> None:
    """Flip one byte in the middle of a sample's JPEG."""
    offset = int(sample["jpg_offset"]) + int(sample["jpg_length"]) // 2
    with (shards / dataset / f"{sample.shard_name}.tar").open("r+b") as tar:
        tar.seek(offset)
        byte = tar.read(1)[0]
        tar.seek(offset)
        tar.write(bytes([byte ^ 0x40]))


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """Shards that may be spoilt."""
    return shutil.copytree(shards, tmp_path / "shards")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_bad_sample_is_named(copy: Path, num_workers: int) -> None:
    """Data set, shard, key and offset; what came before is delivered; nothing stays,
    not even while the error is kept."""
    name, sample, _ = draws_of(copy, 17, 1)[0]
    spoil(copy, sample, name)
    all_names(stream(copy, num_workers=num_workers, epoch_samples=12))
    before = remains()
    received: list[str] = []
    iterator = iter(stream(copy, num_workers=num_workers))
    received += items(next(iterator))
    with pytest.raises(ShardError) as caught:
        next(iterator)
    text = str(caught.value)
    for part in (name, sample.shard_name, sample["key"], str(sample["jpg_offset"]), "crc32c"):
        assert str(part) in text
    assert len(received) == 12
    assert "\n" not in text
    found = remains()
    assert (found.children, found.threads) == (before.children, before.threads)


def next_draw(shards: Path, position: int) -> tuple[str, Sample]:
    """What the same source draws after the given position."""
    name = draws_of(shards, position, 1)[0][0]
    later = draws_of(shards, position + 1, 40)
    return next((found, sample) for found, sample, _ in later if found == name)


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("image", ["normalized", "uint8"])
def test_a_bad_sample_is_replaced_by_the_next_draw(
    shards: Path, copy: Path, num_workers: int, image: Any
) -> None:
    """Its place holds the next draw of its source under its own parameters; all else is as was."""
    name, sample, augmentation = draws_of(copy, 17, 1)[0]
    spoil(copy, sample, name)
    how: dict[str, Any] = {"num_workers": num_workers, "image": image}
    loader = stream(copy, on_error="replace", **how)
    for step, (batch, clean) in enumerate(zip(loader, stream(shards, **how), strict=True)):
        changed = [a != b for a, b in zip(items(batch), items(clean), strict=True)]
        for place in np.flatnonzero(changed).tolist():
            # the row may come again in a later pass, and is replaced there too
            assert names(clean)[place] == (name, int(sample["source_row"]))
        assert step != 1 or changed[5]
        if step == 1:
            _, other = next_draw(copy, 17)
            options = RenderOptions(image=image, res=32)
            expected = render(other, augmentation, options) | {"dataset_name": name}
            for key, value in expected.items():
                found = batch[key][5]
                same = torch.equal(found, value) if torch.is_tensor(value) else found == value
                assert same, key
    assert loader.stats()["replaced"] >= 1


def test_several_bad_samples_in_a_row_are_replaced(copy: Path) -> None:
    """Also where the replacement itself is damaged; the count is of places, not of tries."""
    spoilt = draws_of(copy, 0, 10)
    mine = [(name, sample) for name, sample, _ in spoilt if name == "bedlam"][:3]
    for name, sample in mine:
        spoil(copy, sample, name)
    loader = stream(copy, on_error="replace", batch_size=1)
    batch = next(iter(loader))
    rest = [sample for name, sample, _ in spoilt if name == "bedlam"][3]
    assert spoilt[0][0] == "bedlam"
    assert names(batch) == [("bedlam", int(rest["source_row"]))]
    assert loader.stats()["replaced"] == 1


def test_a_source_that_is_bad_throughout_ends_in_an_error(copy: Path) -> None:
    """Replacement does not search for ever."""
    for sample in ShardSet.open(str(copy / "agora")):  # type: ignore[attr-defined]
        spoil(copy, sample, "agora")
    with pytest.raises(ShardError, match="samples in a row are damaged"):
        all_names(stream(copy, on_error="replace"))


def test_a_tar_that_is_cut_short_is_named(copy: Path) -> None:
    """A row beyond the end of the tar is an error of that row, not a crash."""
    name, sample, _ = draws_of(copy, 3, 1)[0]
    tar = copy / name / f"{sample.shard_name}.tar"
    with tar.open("r+b") as file:
        file.truncate(int(sample["jpg_offset"]) + 100)
    with pytest.raises(ShardError, match="cut short") as caught:
        next(iter(stream(copy)))
    assert name in str(caught.value)
    batch = next(iter(stream(copy, on_error="replace")))
    assert len(names(batch)) == 12
