"""The peers give the items that the stream gives: what is compared is the loaders alone."""

import random
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.peer_cases import PEERS, Case, open_loader, prepare
from benchmarks.peers import refit_style
from benchmarks.peers.records import record_of
from benchmarks.peers.transform import Kind, Transform, draw, read_cut_outs
from refit_shard import Augmentation, Occluders, RenderOptions, ShardSet, render
from tests.refit_reference import ReferenceParams, reference_crop, reference_normalise

DRAWN = [
    Augmentation(),
    Augmentation(flip=True, rot=40.0, sc=1.2, pn=(0.7, 1.3, 1.0)),
    Augmentation(rot=-17.0, sc=0.8, pn=(1.4, 0.6, 1.1)),
]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Crops:
    """The crops of two frames."""
    cache = tmp_path_factory.mktemp("cache")
    return cached_crops(cache, CropSizes(frames=2, passes=1, samples_per_shard=4, occluders=6))


def drawn_parameters() -> list[Augmentation]:
    """Chosen ones, and drawn ones with occluders."""
    random.seed(0)
    occluded = [one for one in (draw(6) for _ in range(40)) if one.occluders]
    return DRAWN + occluded[:6]


def assert_same_labels(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Every key but the image has one value, to float32."""
    assert item.keys() == wanted.keys()
    for name in item.keys() - {"img"}:
        if isinstance(item[name], str):
            assert item[name] == wanted[name]
        else:
            np.testing.assert_allclose(
                np.asarray(item[name]), np.asarray(wanted[name]), rtol=1e-6, atol=1e-5, err_msg=name
            )


@pytest.mark.parametrize("image", ["uint8", "normalized"])
def test_the_peers_transform_gives_our_items(crops: Crops, image: Kind) -> None:
    """All labels are the same, and levels differ by less than one on average."""
    samples = ShardSet.open(str(crops.shards))
    occluders = Occluders(str(crops.occluders))
    transform = Transform(crops.occluders, image)
    level = 1.0 if image == "uint8" else 1 / 255 / 0.225
    for number, drawn in enumerate(drawn_parameters()):
        sample = samples[number % len(samples)]
        ours = render(sample, drawn, RenderOptions(image=image), occluders=occluders)
        theirs = transform.item(record_of(sample), drawn)
        assert_same_labels(theirs, ours | {"dataset_name": "bedlam"})
        differences = theirs["img"].astype(float) - ours["img"].numpy()
        assert np.abs(differences).mean() < level
        turned = transform.item(record_of(sample), replace(drawn, rot=drawn.rot + 3.0))
        differences = turned["img"].astype(float) - ours["img"].numpy()
        assert np.abs(differences).mean() > 2 * level, "so small a turn would be seen"


def test_refits_way_gives_refits_items(crops: Crops) -> None:
    """Its pixels are the reference's, to one level, and its labels are ours."""
    samples = ShardSet.open(str(crops.shards))
    cut_outs = read_cut_outs(crops.occluders)
    for number, drawn in enumerate(DRAWN):
        sample = samples[number]
        record = record_of(sample)
        item = refit_style.item(crops.frames, record, drawn, cut_outs)
        frame = refit_style.read_frame(crops.frames, record)
        params = ReferenceParams(flip=drawn.flip, rot=drawn.rot, sc=drawn.sc, pn=drawn.pn)
        wanted = reference_crop(frame, record["center"], record["scale"], params)
        np.testing.assert_allclose(item["img"], reference_normalise(wanted), atol=1.01 / 255 / 0.22)
        assert_same_labels(item, render(sample, drawn) | {"dataset_name": "bedlam"})


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore")  # not our code's
def test_a_peer_delivers_the_stored_crops(crops: Crops, name: str) -> None:
    """What was written comes back through its loader: labels and untouched columns of each row."""
    if find_spec(PEERS[name].package) is None:
        pytest.skip(f"{name} is not installed")
    assert prepare(name, crops) == ""
    data_set = ShardSet.open(str(crops.shards))
    samples = {int(one["source_row"]): one for one in map(data_set.__getitem__, range(crops.rows))}
    batches = iter(open_loader(Case(contender=name, image="uint8", workers=1), crops, 4))
    seen = set()
    for _ in range(8):
        batch = next(batches)
        for place, row in enumerate(batch["sample_index"].tolist()):
            sample = samples[row]
            np.testing.assert_array_equal(batch["betas"][place], sample["betas"])
            np.testing.assert_array_equal(batch["orig_shape"][place], sample["orig_shape"])
            assert batch["scale"][place] == pytest.approx(sample["scale"] * batch["sc"][place])
            assert batch["imgname"][place] == sample["imgname"]
            seen.add(row)
    assert len(seen) > 1
    assert len(np.unique(batch["rot"])) > 1
