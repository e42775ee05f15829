"""Crops with a wider surrounding: what they hold, what they cost, who may ask for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    RenderOptions,
    StreamingLoader,
    StreamOptions,
    render,
)
from refit_shard.converter.annotations.datasets import DATASETS
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.shards_spec.errors import UsageError
from tests.small import Own, encoded, error_line, refit, samples_of

RAW = RenderOptions(res=64, image="uint8")
WIDE = AugmentationPolicy(scale_sigma=0.5, scale_clip=0.5, occlude=0)


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Two people in white frames, with room around them, built for factors up to 1.5."""
    tree = Own(tmp_path_factory.mktemp("wide"), ["a/0.png", "a/1.png"])
    for name in tree.names:
        tree.put(name, encoded(".png", np.full((480, 640, 3), 255, np.uint8)))
    tree.save(center=np.array([[320.0, 240.0], [300.0, 230.0]]), scale=np.array([0.7, 0.75]))
    assert tree.build("--skip-checks", "--envelope", 1.5).code == 0
    return tree


def loader(places: dict[str, Path], policy: AugmentationPolicy) -> StreamingLoader:
    """Of sets in equal shares."""
    share = 1 / len(places)
    alone: dict[str, Any] = {"rank": 0, "world_size": 1, "num_workers": 0}
    options = StreamOptions(batch_size=2, res=64, image="uint8", policy=policy, **alone)
    return StreamingLoader({name: (str(p), share) for name, p in places.items()}, options)


def test_no_black_is_shown_of_what_they_are_built_for(white: Own) -> None:
    """At any rotation; and what goes beyond is refused, by the set's own factor."""
    for sample in samples_of(white.out):
        for rot in (-135.0, -30.0, 0.0, 45.0, 90.0):
            for flip in (False, True):
                item = render(sample, Augmentation(sc=1.5, rot=rot, flip=flip), RAW)
                assert int(item["img"].min()) > 250
    with pytest.raises(UsageError, match=r"sc=2\.4 shows up to"):
        render(samples_of(white.out)[0], Augmentation(sc=2.4), RAW)
    policy = replace(WIDE, rot_clip=180.0, rot_sigma=90.0, colour=0)
    found = [batch for _ in range(8) for batch in loader({"own": white.out}, policy)]
    assert max(float(batch["sc"].max()) for batch in found) == 1.5
    assert min(int(batch["img"].min()) for batch in found) > 250
    with pytest.raises(UsageError, match=r"own: .* up to 1\.5, .* 1\.6; .* --envelope 1\.6"):
        loader({"own": white.out}, replace(WIDE, scale_clip=0.6))


def test_of_several_sets_the_narrowest_decides_and_is_named(white: Own, tmp_path: Path) -> None:
    narrow = refit(*white.command("--skip-checks", "--out", tmp_path))
    assert narrow.code == 0
    sets = {"wide": white.out, "narrow": tmp_path / "own"}
    loader({"wide": white.out}, WIDE)
    loader(sets, AugmentationPolicy(occlude=0))
    for order in (("wide", "narrow"), ("narrow", "wide")):
        with pytest.raises(
            UsageError, match=r"narrow: the stored crops have room for scales up to 1\.25,"
        ):
            loader({name: sets[name] for name in order}, WIDE)


def test_a_dry_run_says_what_they_cost_and_another_envelope_is_another_build(white: Own) -> None:
    sizes = {}
    for factor in (1, 1.25, 1.5):
        told = refit(*white.command("--skip-checks", "--dry-run", "--json", "--envelope", factor))
        assert told.code == 0, told.err
        sizes[factor] = json.loads(told.out)[0]["bytes"]
    assert sizes[1] < sizes[1.25] < sizes[1.5]
    other = refit(*white.command("--skip-checks"))
    assert other.code == 2
    assert "with another envelope (--envelope)" in error_line(other)
    info = refit("info", white.out, "--json")
    assert json.loads(info.out)[0]["envelope"]["scale"] == 1.5
    assert refit("verify", white.out).code == 0


@pytest.mark.parametrize("bad", [0.99, 4.01, "nan", "inf", "-1"])
def test_factors_out_of_bounds_are_refused(tmp_path: Path, bad: object) -> None:
    tree = Own(tmp_path, ["a/0.png"])
    result = tree.build("--envelope", bad)
    assert result.code == 2
    assert "--envelope: must be a number from 1 to 4, got" in error_line(result)
    assert not tree.out.exists()


def test_crops_already_have_nothing_around_them() -> None:
    """A wider envelope would promise what their images do not hold."""
    places: dict[str, Any] = {"npz": "a.npz", "root": "b", "out": "c"}
    cropped = DATASETS["3dpw_test_sub"]
    BuildRequest(dataset=cropped, **places)
    with pytest.raises(UsageError, match=r"--envelope 1\.5: the images of 3dpw_test_sub are crops"):
        BuildRequest(dataset=cropped, options=BuildOptions(envelope=1.5), **places)
