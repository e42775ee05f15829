"""Items from the tars alone, through plain webdataset."""

from pathlib import Path

import pytest
import torch
import webdataset as wds

from benchmarks.trees import Tree
from loaders import Augmentation, AugmentationPolicy, RenderOptions, render, webdataset_item
from loaders.tars import TarSample
from refit_shard.cli import main
from shards_spec import ShardSet
from shards_spec.errors import ShardError, UsageError


@pytest.fixture(scope="module")
def shards(bedlam_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEDLAM build of several shards."""
    out = tmp_path_factory.mktemp("tars")
    where = ["--npz", str(bedlam_tree.npz), "--root", str(bedlam_tree.root), "--name", "own-set"]
    # The closeup frames do not fit their labels without BEDLAM's own rule; enough others do.
    many = ["--max-bad", "0.9", "--workers", "0", "--samples-per-shard", "8"]
    assert main(["build", *where, "--out", str(out), *many]) == 0
    return out / "own-set"


def tars(shards: Path) -> "wds.WebDataset":
    """Plain webdataset over the shards."""
    return wds.WebDataset([str(path) for path in sorted(shards.glob("*.tar"))], shardshuffle=False)


@pytest.mark.parametrize("decoded", [True, False])
def test_items_from_the_tars_equal_those_from_the_index(shards: Path, decoded: bool) -> None:
    """Every key, bit for bit, without augmentation, in the order of the shards."""
    data_set = ShardSet.open(str(shards))
    source = tars(shards).decode() if decoded else tars(shards)
    count = 0
    for index, item in enumerate(source.map(webdataset_item())):
        expected = render(data_set[index], Augmentation())
        assert item.pop("dataset_name") == "own-set"
        assert item.pop("__key__").startswith("own-set-")
        assert item.keys() == expected.keys()
        for name, value in expected.items():
            same = torch.equal(item[name], value) if torch.is_tensor(value) else item[name] == value
            assert same, name
        count += 1
    assert count == len(data_set) > 8


def test_augmentation_follows_the_seed(shards: Path) -> None:
    """The same seed repeats a run, another does not; the parameters in the item made the pixels."""
    policy = AugmentationPolicy()
    runs = [
        [item["img"] for item in tars(shards).map(webdataset_item(policy, seed=seed))]
        for seed in (3, 3, 4)
    ]
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))
    options = RenderOptions(image="uint8")
    data_set = ShardSet.open(str(shards))
    for index, item in enumerate(tars(shards).map(webdataset_item(policy, options=options))):
        again = Augmentation(flip=bool(item["flip"]), rot=float(item["rot"]), sc=float(item["sc"]))
        assert torch.equal(render(data_set[index], again, options)["img"], item["img"])


def test_what_is_no_sample_is_one_clear_error(shards: Path) -> None:
    """A decoded image, a missing member and a damaged .npy are each refused by name."""
    sample = next(iter(tars(shards)))
    with pytest.raises(UsageError, match="leave the images encoded"):
        next(iter(tars(shards).decode("rgb8").map(webdataset_item())))
    with pytest.raises(ShardError, match="npy"):
        TarSample({key: value for key, value in sample.items() if key != "npy"})
    with pytest.raises(ShardError, match="damaged"):
        TarSample({**sample, "npy": sample["npy"][:100]})
