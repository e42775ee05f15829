"""The drawn parameters against the stated distributions, and what is refused."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from refit_shard.loaders.items.draws import Augmentation, Draws, Occlusion, explicit, select, single
from refit_shard.loaders.items.policy import AugmentationPolicy, draw
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import CROPPED_ENVELOPE, FULL_ENVELOPE, Envelope
from tests.searches import examples

COUNT = 100_000
OBJECTS = 10


@pytest.fixture(scope="module")
def drawn() -> Draws:
    """ReFit's policy at 100k positions."""
    return draw(AugmentationPolicy(), 0, 0, COUNT, objects=OBJECTS, res=256)


def near(values: NDArray[Any], probability: float) -> bool:
    """Whether the share of true values is the probability, to four deviations."""
    deviation = np.sqrt(probability * (1 - probability) / values.size)
    return bool(abs(values.mean() - probability) < 4 * deviation)


def clipped_normal(values: NDArray[np.float64], mean: float, sigma: float, clip: float) -> None:
    """N(mean, sigma) inside, all of the tails' mass on the two bounds."""
    low, high = mean - clip, mean + clip
    assert values.min() == low
    assert values.max() == high
    assert near(values == low, stats.norm.cdf(-clip / sigma))
    assert near(values == high, stats.norm.cdf(-clip / sigma))
    inside = np.sort(values[(values > low) & (values < high)])
    below = np.count_nonzero(values == low) + np.arange(len(inside))
    gap = np.abs(below / values.size - stats.norm.cdf(inside, mean, sigma)).max()
    assert gap * np.sqrt(values.size) < 1.95  # Kolmogorov's bound at p = 0.001


def test_rotation_and_scale_are_clipped_normals(drawn: Draws) -> None:
    """30 degrees clipped at 60; 0.25 about 1 clipped at 0.75 and 1.25."""
    clipped_normal(drawn.rot, 0.0, 30.0, 60.0)
    clipped_normal(drawn.sc, 1.0, 0.25, 0.25)


def test_flip_occlusion_and_colour(drawn: Draws) -> None:
    """Half are flipped, half occluded; channel factors are uniform in 0.6 to 1.4."""
    assert near(drawn.flip, 0.5)
    assert near(drawn.occ, 0.5)
    for channel in drawn.pn.T.astype(np.float64):
        assert stats.kstest(channel, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3


def test_occluders(drawn: Draws) -> None:
    """1 to 7 of them, any object, anywhere on the crop, of size 0.2 to 1."""
    counts = np.array([len(one) for one in drawn.occlusion])
    np.testing.assert_array_equal(counts > 0, drawn.occ)
    assert stats.chisquare(np.bincount(counts[counts > 0], minlength=8)[1:]).pvalue > 1e-3
    every = [one for some in drawn.occlusion for one in some]
    numbers = np.bincount([one.index for one in every])
    assert len(numbers) == OBJECTS
    assert stats.chisquare(numbers).pvalue > 1e-3
    for name, low, width in (("x", 0.0, 256.0), ("y", 0.0, 256.0), ("size", 0.2, 0.8)):
        values = [getattr(one, name) for one in every]
        assert stats.kstest(values, stats.uniform(low, width).cdf).pvalue > 1e-3


def test_parameters_are_independent(drawn: Draws) -> None:
    """No two parameters of an item, nor of neighbours, go together."""
    counts = [len(one) for one in drawn.occlusion]
    columns = np.column_stack([drawn.flip, drawn.occ, drawn.rot, drawn.sc, drawn.pn])
    both = np.column_stack([columns[:-1], columns[1:]])
    correlation = np.corrcoef(both.T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 4.5 / np.sqrt(COUNT)
    more = np.corrcoef(np.column_stack([counts, columns[:, [0, 2, 3]]])[drawn.occ].T)
    assert np.abs(more - np.eye(4)).max() < 4.5 / np.sqrt(COUNT / 2)


@settings(max_examples=examples(40))
@given(st.integers(0, 10**9), st.integers(0, 20), st.integers(0, 20))
def test_windows_agree(first: int, skip: int, count: int) -> None:
    """A position's parameters do not depend on the batch that it is drawn in."""
    policy = AugmentationPolicy()
    whole = draw(policy, 7, first, skip + count, objects=5, res=256)
    part = draw(policy, 7, first + skip, count, objects=5, res=256)
    for name in ("occ", "flip", "rot", "sc", "pn"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[skip:])
    assert part.occlusion == whole.occlusion[skip:]


def test_literal_draws() -> None:
    """Seed 0 draws these, for good."""
    drawn = draw(AugmentationPolicy(), 0, 0, 4, objects=OBJECTS, res=256)
    assert drawn.occ.tolist() == [False, True, False, False]
    assert drawn.flip.tolist() == [False, True, True, True]
    np.testing.assert_allclose(
        drawn.rot, [-18.16992042, -22.28938733, 32.83096974, 20.79724039], atol=1e-7
    )
    assert drawn.sc.tolist() == [1.25, 0.75, 0.75, 1.25]
    np.testing.assert_allclose(drawn.pn[0], [0.99556893, 1.2992425, 1.02213], atol=1e-6)
    assert [one.index for one in drawn.occlusion[1]] == [8, 0, 6, 0, 8, 6]
    assert drawn.occlusion[1][0] == Occlusion(
        index=8, x=99.69615744191441, y=199.06976637858853, size=0.4227129962882481
    )


LOOKS = AugmentationPolicy(
    upper_body=0.2, lower_body=0.1, downscale=0.3, blur=0.4, gray=0.25, tone=0.6
)


@pytest.fixture(scope="module")
def looks() -> Draws:
    """All that ReFit's policy lacks, at 100k positions."""
    return draw(LOOKS, 0, 0, COUNT, objects=OBJECTS, res=256)


def test_what_refit_lacks_changes_no_draw_of_refits(drawn: Draws, looks: Draws) -> None:
    """And is not even there where nothing of it is asked for."""
    assert drawn.look is None
    for name in ("occ", "flip", "rot", "sc", "pastes", "spans"):
        assert getattr(looks, name).tobytes() == getattr(drawn, name).tobytes()
    assert looks.look is not None
    gray = looks.look["gray"] > 0
    assert (looks.pn[~gray] == drawn.pn[~gray]).all()
    assert (looks.pn[gray] == drawn.pn[gray, 1:2]).all(), "gray stays gray"


def test_bodies_effects_and_tone(looks: Draws) -> None:
    """Shares of the samples as they are asked for; values uniform in their spans."""
    look = looks.look
    assert look is not None
    for name, none, share, low, width in (
        ("downscale", 1.0, 0.3, 0.5, 0.4),
        ("blur", 0.0, 0.4, 0.5, 1.5),
        ("brightness", 0.0, 0.6, -0.2, 0.4),
        ("contrast", 1.0, 0.6, 0.8, 0.4),
    ):
        some = look[name] != none
        assert near(some, share)
        assert stats.kstest(look[name][some], stats.uniform(low, width).cdf).pvalue > 1e-3
    assert near(look["gray"], 0.25)
    assert near(look["body_crop"] == 1, 0.2)
    assert near(look["body_crop"] == 2, 0.1)
    assert (look["body_crop"] <= 2).all()
    columns = np.column_stack([*(look[name] for name in look.dtype.names or ()), looks.rot])
    correlation = np.corrcoef(columns.T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 4.5 / np.sqrt(COUNT)
    assert ((look["brightness"] != 0) == (look["contrast"] != 1)).all(), "together"


def test_literal_looks() -> None:
    """Seed 0 draws these, for good; and a position's are the same in any batch."""
    look = draw(LOOKS, 0, 0, 8, objects=0, res=256).look
    later = draw(LOOKS, 0, 5, 3, objects=0, res=256).look
    assert look is not None
    assert later is not None
    assert (look[5:] == later).all()
    assert look["body_crop"].tolist() == [0, 1, 0, 0, 1, 1, 2, 1]
    np.testing.assert_allclose(look["blur"][:3], [1.57775569, 0.0, 1.94577014], atol=1e-7)
    np.testing.assert_allclose(look["downscale"][:2], [0.85844426, 1.0], atol=1e-7)
    np.testing.assert_allclose(look["brightness"][:2], [0.17679432, -0.04164984], atol=1e-7)
    np.testing.assert_allclose(look["contrast"][:2], [0.92023401, 0.9109972], atol=1e-7)
    assert look["gray"].tolist() == [0, 1, 0, 0, 0, 0, 1, 0]


def test_an_item_is_made_again_from_its_augmentation() -> None:
    """What was drawn of a position, as one would hand it to render, and back."""
    looks = draw(LOOKS, 0, 0, 100, objects=OBJECTS, res=256)
    assert looks.look is not None
    for place in range(100):
        one = single(select(looks, [place]))
        again = explicit([one])
        if again.look is None:
            assert one.body == "whole"
            assert (one.downscale, one.blur, one.gray) == (1.0, 0.0, False)
            assert (one.brightness, one.contrast) == (0.0, 1.0)
        else:
            assert again.look[0] == looks.look[place]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"body": "legs"}, "body: must be one of 'whole', 'upper', 'lower', got 'legs'"),
        ({"blur": 5.1}, "blur: must be a number from 0 to 5, got 5.1"),
        ({"downscale": float("nan")}, "downscale: must be a number from 0 to 1, got nan"),
        ({"contrast": -0.1}, "contrast: must be a number from 0 to 4"),
        ({"brightness": 2}, "brightness: must be a number from -1 to 1"),
        ({"sc": -1.0}, "sc: must be a number from 0.01 to 100, got -1.0"),
        ({"rot": float("inf")}, "rot: must be a number from -1e+06 to 1e+06, got inf"),
        ({"pn": (1.0, -0.5, 1.0)}, "pn: must be a number from 0 to 1e+06, got -0.5"),
        ({"pn": (1.0, float("nan"), 1.0)}, "pn: must be a number from 0 to 1e+06, got nan"),
        ({"pn": (1.0, 1.0)}, "pn: must be three numbers, got (1.0, 1.0)"),
    ],
)
def test_parameters_out_of_bounds_are_refused(changed: dict[str, Any], named: str) -> None:
    """Before anything is drawn."""
    with pytest.raises(UsageError) as caught:
        Augmentation(**changed)
    assert named in str(caught.value)


def test_each_part_is_adjustable() -> None:
    """Other values are what is drawn; zeros turn a part off and leave the rest as it was."""
    changed = AugmentationPolicy(rot_sigma=10, rot_clip=15, scale_sigma=0.1, scale_clip=0.12)
    drawn = draw(changed, 0, 0, 20_000, objects=0, res=256)
    clipped_normal(drawn.rot, 0.0, 10.0, 15.0)
    clipped_normal(drawn.sc, 1.0, 0.1, 0.12)
    assert not drawn.occ.any()
    off = AugmentationPolicy(rot_sigma=0, scale_sigma=0, flip=0, colour=0, occlude=0)
    still = draw(off, 0, 0, 1000, objects=5, res=256)
    for values in (still.rot, still.flip, still.occ, still.occlusion):
        assert not any(values)
    assert (still.sc == 1.0).all()
    assert (still.pn == 1.0).all()
    always = AugmentationPolicy(flip=1.0, occlude=1.0, occluder_size=(0.5, 0.5))
    one = draw(always, 0, 0, 1000, objects=5, res=64)
    assert one.flip.all()
    assert one.occ.all()
    assert {o.size for some in one.occlusion for o in some} == {0.5}
    assert max(o.x for some in one.occlusion for o in some) < 64
    plain = draw(AugmentationPolicy(), 0, 0, 1000, objects=5, res=64)
    np.testing.assert_array_equal(one.rot, plain.rot)


def test_wider_than_the_envelope_is_refused_with_the_numbers() -> None:
    """The crops' bound, the policy's, and what to do."""
    AugmentationPolicy().check_envelope(FULL_ENVELOPE, "bedlam")
    with pytest.raises(UsageError, match=r"bedlam: .* up to 1\.25, .* 1\.3; lower scale_clip"):
        AugmentationPolicy(scale_clip=0.3).check_envelope(FULL_ENVELOPE, "bedlam")
    with pytest.raises(UsageError, match=r"own: .* up to 1\.1, .* 1\.25"):
        AugmentationPolicy().check_envelope(Envelope(scale=1.1), "own")
    unturned = Envelope(rotation=False)
    with pytest.raises(UsageError, match=r"own: .* no room for rotation.* 60 degrees"):
        AugmentationPolicy().check_envelope(unturned, "own")
    AugmentationPolicy(rot_sigma=0).check_envelope(unturned, "own")
    AugmentationPolicy(rot_clip=0, scale_sigma=0).check_envelope(CROPPED_ENVELOPE, "own")
    AugmentationPolicy(rot_clip=0, scale_clip=0).check_envelope(CROPPED_ENVELOPE, "own")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"rot_sigma": -1.0}, "rot_sigma: must be a number from 0 to 1000, got -1.0"),
        ({"rot_clip": 181.0}, "rot_clip: must be a number from 0 to 180, got 181.0"),
        ({"scale_clip": 1.0}, "scale_clip: must be a number from 0 to 0.99, got 1.0"),
        ({"scale_sigma": float("nan")}, "scale_sigma: must be a number from 0 to 10, got nan"),
        ({"flip": 1.5}, "flip: must be a number from 0 to 1, got 1.5"),
        ({"colour": float("inf")}, "colour: must be a number from 0 to 1, got inf"),
        ({"occlude": -0.1}, "occlude: must be a number from 0 to 1, got -0.1"),
        ({"occluder_size": (0.5, 0.2)}, "occluder_size must be"),
        ({"occluder_size": (0.0, 0.2)}, "occluder_size must be"),
        ({"blur_sigma": (1.0, 6.0)}, "blur_sigma must be (low, high) in 0 to 5, got (1.0, 6.0)"),
        ({"downscale_share": 0.5}, "downscale_share must be (low, high) in 0 to 1, got 0.5"),
        ({"downscale_share": (0.5, 0.6, 0.7)}, "downscale_share must be"),
        ({"gray": 1.01}, "gray: must be a number from 0 to 1, got 1.01"),
        ({"tone": True}, "tone: must be a number from 0 to 1, got True"),
        ({"upper_body": 0.6, "lower_body": 0.5}, "1 in all at most; got 0.6 and 0.5"),
    ],
)
def test_values_out_of_bounds_are_refused(changed: dict[str, Any], named: str) -> None:
    """At once, by name, with the value."""
    with pytest.raises(UsageError) as caught:
        AugmentationPolicy(**changed)
    assert named in str(caught.value)


def test_a_policy_is_frozen_and_keyword_only() -> None:
    """Nobody changes a policy under a running loader."""
    with pytest.raises(FrozenInstanceError):
        AugmentationPolicy().flip = 0.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        AugmentationPolicy(30.0)  # type: ignore[call-arg]
