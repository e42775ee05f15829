"""Damaged samples: named exactly, or replaced so that labels and pixels still belong together."""

import logging
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refit_shard import RenderOptions, Sample, ShardSet, render
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.records import NpyLayout, OpenTars, RecordReader
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
    assert found.children == before.children
    assert found.threads <= before.threads


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


def labels_at(shards: Path, dataset: str, sample: Sample) -> tuple[Path, int, NpyLayout]:
    """Where the ``.npy`` member of a sample begins in its tar."""
    npy = NpyLayout.of(ShardSet.open(str(shards / dataset)).manifest)
    tar = shards / dataset / f"{sample.shard_name}.tar"
    jpeg_end = int(sample["jpg_offset"]) + int(sample["jpg_length"])
    return tar, tar.read_bytes().index(npy.header, jpeg_end), npy


def flip(tar: Path, at: int, bit: int) -> None:
    """Flip one bit of a file."""
    with tar.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def test_any_flipped_bit_of_the_labels_is_refused_by_the_reader(copy: Path) -> None:
    """Every byte of a ``.npy`` member, header and record and checksum: an error that names the tar
    and the row; undone, the sample is as it was.
    """
    data_set = ShardSet.open(str(copy / "bedlam"))
    tar, begin, npy = labels_at(copy, "bedlam", data_set[9])
    _, row = data_set.locate(9)
    reader = RecordReader(data_set, OpenTars())
    whole = reader.read(9)
    for at in range(begin, begin + npy.size):
        flip(tar, at, at % 8)
        with pytest.raises(ShardError, match=rf"{tar.name}: row {row}:? .*labels"):
            reader.read(9)
        flip(tar, at, at % 8)
    assert reader.read(9) == whole


def sampled(npy: NpyLayout) -> Iterator[tuple[int, int]]:
    """Bytes and bits of a member: some of the header, and of each of the record's columns."""
    yield from ((at, at % 8) for at in range(0, len(npy.header), 97))
    for name in npy.dtype.names or ():
        kind, offset = npy.dtype.fields[name][:2]  # type: ignore[index]
        for at in {0, kind.itemsize - 1}:
            yield len(npy.header) + offset + at, (offset + at) % 8


def test_damaged_labels_are_named_or_replaced_by_the_stream(shards: Path, copy: Path) -> None:
    """A bit in any column: dataset, shard, row and key are said; with ``replace`` the place holds
    the next draw of its source, and all other places what they held.
    """
    name, sample, augmentation = draws_of(copy, 5, 1)[0]
    tar, begin, npy = labels_at(copy, name, sample)
    clean = items(next(iter(stream(shards))))
    _, other = next_draw(copy, 5)
    expected = render(other, augmentation, RenderOptions(res=32)) | {"dataset_name": name}
    for at, bit in sampled(npy):
        flip(tar, begin + at, bit)
        with pytest.raises(ShardError) as caught:
            next(iter(stream(copy)))
        for part in (name, f"shard {sample.shard_name}, row ", f"key {sample['key']}", "labels"):
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)
        loader = stream(copy, on_error="replace")
        batch = next(iter(loader))
        found = items(batch)
        assert [a == b for a, b in zip(found, clean, strict=True)] == [p != 5 for p in range(12)]
        for key, value in expected.items():
            same = torch.equal(batch[key][5], value) if torch.is_tensor(value) else True
            assert same, key
        assert loader.stats()["replaced"] == 1
        flip(tar, begin + at, bit)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_what_is_replaced_is_said_a_few_times(
    copy: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    """The first ten of a run in full, then at powers of two, and each epoch's sum; by the loop, so
    for all workers together.
    """
    for sample in list(ShardSet.open(str(copy / "bedlam")))[::2]:  # type: ignore[call-overload]
        spoil(copy, sample, "bedlam")
    loader = stream(copy, on_error="replace", num_workers=num_workers, epoch_samples=120)
    said: list[str] = []
    next(iter(loader))  # an epoch that is left early has no sum, nor has the next one its samples
    assert loader.stats()["replaced"] > 0
    said += [record.getMessage() for record in caplog.records if "key" in record.getMessage()]
    counts = [loader.stats()["replaced"]]
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="refit_shard.loaders"):
            all_names(loader)
        said += [record.getMessage() for record in caplog.records]
        counts.append(loader.stats()["replaced"])
    assert counts[3] > 64, "enough to be annoying"
    full = [text for text in said if "key bedlam-" in text and "so far" not in text]
    assert len(full) == 10
    assert [text.removeprefix("replaced: ") for text in full] == loader.stats()["replaced_first"]
    powers = [2**n for n in range(4, 20) if 2**n <= counts[3]]
    assert [int(text.split()[1]) for text in said if "so far" in text] == powers
    sums = [text for text in said if "in this epoch" in text]
    mine = [after - before for before, after in pairwise(counts)]
    assert [int(text.split()[1]) for text in sums] == mine
    assert all("of the 120 samples" in text for text in sums)
    assert len(said) == 10 + len(powers) + 3


def test_nothing_is_said_where_nothing_is_replaced(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the log nor in the statistics."""
    loader = stream(shards, on_error="replace", epoch_samples=24)
    with caplog.at_level(logging.INFO, logger="refit_shard.loaders"):
        all_names(loader)
    assert not [text for text in caplog.messages if "replaced" in text]
    assert loader.stats()["replaced"] == 0
    assert loader.stats()["replaced_first"] == []
