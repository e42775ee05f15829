"""Items from the tars alone, through plain webdataset."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from benchmarks.trees import Tree
from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    RenderOptions,
    ShardSet,
    render,
    webdataset_item,
)
from refit_shard.cli import main
from refit_shard.loaders.items.tars import TarSample
from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.shards_spec.records import NpyLayout


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


# What was drawn for a sample: key, rotation, scale and the factor of the red channel.
Drawn = tuple[str, float, float, float]
POLICY = AugmentationPolicy(occlude=0)
SMALL = RenderOptions(res=16, image="uint8")
LOADERS: dict[str, Callable[..., Iterable[Any]]] = {"DataLoader": DataLoader, "wds": wds.WebLoader}


def drawn_of(item: dict[str, Any]) -> Drawn:
    """What was drawn for an item."""
    return item["__key__"], float(item["rot"]), float(item["sc"]), float(item["pn"][0])


def each_epoch(
    shards: Path,
    num_workers: int,
    *,
    epochs: int = 3,
    seed: int = 0,
    loader: str = "DataLoader",
    split: bool = True,
    **options: Any,
) -> list[list[Drawn]]:
    """What is drawn in each epoch, in the order of the workers' batches; ``split=False``: every
    worker reads every shard.
    """
    how: dict[str, Any] = {} if split else {"workersplitter": None}
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    pipeline = wds.WebDataset(urls, shardshuffle=False, empty_check=False, **how)
    dataset = pipeline.map(webdataset_item(POLICY, seed=seed, options=SMALL)).map(drawn_of)
    batches = LOADERS[loader](dataset, batch_size=None, num_workers=num_workers, **options)
    return [list(map(tuple, batches)) for _ in range(epochs)]


@pytest.mark.parametrize(
    ("num_workers", "loader", "options"),
    [
        (0, "DataLoader", {}),
        (2, "DataLoader", {}),
        (2, "DataLoader", {"persistent_workers": True}),
        (2, "wds", {}),
        (1, "DataLoader", {"multiprocessing_context": "spawn"}),
    ],
)
def test_every_epoch_draws_anew_and_a_run_is_repeated(
    shards: Path, num_workers: int, loader: str, options: dict[str, Any]
) -> None:
    """The seed of PyTorch and ours repeat a run; another of either is another run."""

    def run(torchs: int, ours: int = 0, epochs: int = 3) -> list[list[Drawn]]:
        torch.manual_seed(torchs)
        return each_epoch(shards, num_workers, epochs=epochs, seed=ours, loader=loader, **options)

    spawned = "multiprocessing_context" in options  # each start takes seconds
    first = run(1, epochs=2 if spawned else 3)
    rows = len(ShardSet.open(str(shards)))
    for epoch in first:
        assert len({key for key, *_ in epoch}) == rows
    together = [one for epoch in first for one in epoch]
    assert len(set(together)) == len(together), "no sample is drawn twice alike"
    if spawned:
        return
    assert run(1) == first
    assert not set(together) & set(run(1, ours=1)[0])
    if num_workers:
        assert not set(together) & set(run(2)[0])


def test_workers_that_read_the_same_samples_share_no_draws(shards: Path) -> None:
    """Such as those of shards that are resampled: a sample that comes twice in an epoch comes with
    two augmentations.
    """
    torch.manual_seed(0)
    for epoch in each_epoch(shards, 3, split=False, epochs=2):
        found: dict[str, list[Drawn]] = defaultdict(list)
        for one in epoch:
            found[one[0]].append(one)
        assert {len(many) for many in found.values()} == {3}
        assert all(len(set(many)) == 3 for many in found.values())


def test_a_generator_repeats_a_run_too(shards: Path) -> None:
    """And leaves the global generator out of it."""
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(4)
        runs.append(each_epoch(shards, 2, epochs=2, generator=generator))
    assert runs[0] == runs[1]


def test_the_places_of_workers_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the largest seeds that PyTorch gives."""
    seeds = [0, 1, 2**32, 2**63 - 1, 2**63 + 6]
    rng = np.random.default_rng(0)
    drawn = set()
    for seed in seeds:
        monkeypatch.setattr("refit_shard.loaders.items.tars._worker_seed", lambda seed=seed: seed)
        item: Any = webdataset_item(POLICY)
        for key in ("a-1", "a-2", str(rng.integers(0, 10**9))):
            drawn.add(float(item._draw(key).rot[0]))
    assert len(drawn) == 3 * len(seeds)


def test_a_policy_wider_than_the_crops_is_refused(shards: Path) -> None:
    """At the first sample whose crop does not hold what was drawn, with the parameter's name;
    what came before is whole.
    """
    for policy, name in (
        (AugmentationPolicy(scale_sigma=10, scale_clip=0.99, rot_sigma=0), "scale_clip"),
        (AugmentationPolicy(scale_clip=0.5, scale_sigma=10), "scale_clip"),
    ):
        with pytest.raises(UsageError, match=rf"webdataset_item: own-set-\d+: sc=.*{name}"):
            list(tars(shards).map(webdataset_item(policy)))
    assert list(tars(shards).map(webdataset_item(AugmentationPolicy(rot_clip=180.0))))


@pytest.fixture
def one(shards: Path) -> dict[str, Any]:
    """The members of one sample, with its record's place in the ``.npy``."""
    sample = next(iter(tars(shards)))
    return {name: sample[name] for name in ("__key__", "jpg", "npy")}


def test_a_flipped_bit_of_the_labels_is_refused(shards: Path, one: dict[str, Any]) -> None:
    """Every byte of the member in turn, one bit of it: an error, or the very same item (what the
    header is padded with means nothing)."""
    item = webdataset_item(options=SMALL)
    whole = item(one)
    header = len(NpyLayout.of(ShardSet.open(str(shards)).manifest).header)
    rng = np.random.default_rng(1)
    said: set[str] = set()
    for at in range(len(one["npy"])):
        spoilt = bytearray(one["npy"])
        spoilt[at] ^= 1 << int(rng.integers(8))
        try:
            found = item({**one, "npy": bytes(spoilt)})
        except ShardError as error:
            said.add(str(error).replace(one["__key__"], "KEY")[:10])
        else:
            assert at < header
            for name, value in whole.items():
                same = found[name] == value
                assert same.all() if torch.is_tensor(same) else same, (at, name)
    assert said == {"KEY: its .", "KEY: the l"}, "named by its key"


def test_a_flipped_bit_is_refused_where_webdataset_has_decoded(
    shards: Path, tmp_path: Path
) -> None:
    """In the tar itself, read with and without webdataset's own decoder."""
    folder = Path(shutil.copytree(shards, tmp_path / "own-set"))
    npy = NpyLayout.of(ShardSet.open(str(folder)).manifest)
    (tar, *_) = sorted(folder.glob("*.tar"))
    data = tar.read_bytes()
    begin = data.index(npy.header) + len(npy.header)
    for at in range(begin, begin + npy.dtype.itemsize, 23):
        tar.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        for source in (tars(folder), tars(folder).decode()):
            with pytest.raises(ShardError, match=r"own-set-\d+: the labels are damaged"):
                next(iter(source.map(webdataset_item(options=SMALL))))
