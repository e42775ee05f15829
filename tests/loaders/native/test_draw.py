"""Whole images against the reference, on both paths: whatever the map, the crop, the occluders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders import native
from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.native import PASTE, CutOuts, Drawer, ImageKind, Jpegs
from tests.loaders.native import reference
from tests.loaders.native.reference import Paste
from tests.loaders.test_pixels import maps
from tests.small import colourful

U8 = NDArray[np.uint8]
Floats = NDArray[np.float64]

RES = st.sampled_from([1, 7, 16, 33, 64])
SIDES = st.integers(1, 120)
SEEDS = st.integers(0, 2**32 - 1)
# Made once: what earlier examples left in their memory must not be seen in later ones.
DRAWERS: dict[tuple[int, ImageKind, bool], Drawer] = {}


def drawer(res: int, kind: ImageKind, portable: bool) -> Drawer:
    """A drawer of one thread that others used before."""
    key = res, kind, portable
    if key not in DRAWERS:
        DRAWERS[key] = Drawer(res, kind, mean=MEAN, deviation=STD, portable=portable)
    return DRAWERS[key]


def cut_outs(seed: int) -> list[U8]:
    """RGBA pictures of several sizes, one of them a single pixel."""
    rng = np.random.default_rng(seed)
    sides = [(1, 1), *rng.integers(1, 70, (4, 2)).tolist()]
    return [rng.integers(0, 256, (*side, 4), np.uint8) for side in sides]


def drawn(
    made: Drawer,
    data: bytes,
    size: tuple[int, int],
    affine: Floats,
    *,
    factors: Sequence[float] = (1, 1, 1),
    objects: Sequence[U8] = (),
    pastes: Sequence[Paste] = (),
    decoded: U8 | None = None,
) -> NDArray[Any]:
    """One image, in memory that held something."""
    outs = np.full((3, *made.image.shape(made.res)), 77, made.image.dtype)
    codes, _ = made.draw(
        Jpegs.of([data]),
        np.array([size], np.int32),
        affine[None],
        np.array([factors], np.float32),
        outs,
        np.array([1]),
        cut_outs=CutOuts(objects),
        pastes=np.array([(one.x, one.y, one.size, one.cut_out) for one in pastes], PASTE),
        paste_spans=np.array([[0, len(pastes)]]),
        decoded=None if decoded is None else {0: decoded},
    )
    assert codes.tolist() == [0]
    assert (outs[::2] == 77).all(), "only its own place is written"
    return np.asarray(outs[1])


@given(st.data(), SIDES, SIDES, RES, SEEDS)
@settings(deadline=None, max_examples=300)
def test_pixels_are_the_references(
    data: st.DataObject, height: int, width: int, res: int, seed: int
) -> None:
    """Turned, mirrored, stretched, far away or within a pixel; crops of any size."""
    affine = data.draw(maps(res))
    stored = encode(colourful(height, width, seed), 80)
    expected = reference.warp(*native.planes(stored, height, width), affine, res)
    for portable in (False, True):
        made = drawer(res, ImageKind.UINT8, portable)
        assert np.array_equal(drawn(made, stored, (height, width), affine), expected)


@given(st.data(), SIDES, SIDES, RES, SEEDS)
@settings(deadline=None, max_examples=100)
def test_decoded_images_are_warped_alike(
    data: st.DataObject, height: int, width: int, res: int, seed: int
) -> None:
    """As crops are that another program encoded."""
    affine = data.draw(maps(res))
    image = colourful(height, width, seed)
    made = drawer(res, ImageKind.UINT8, False)
    found = drawn(made, b"", (height, width), affine, decoded=image)
    assert np.array_equal(found, reference.warp_rgb(image, affine, res))


PASTES = st.lists(
    st.builds(
        Paste,
        cut_out=st.integers(0, 4),
        x=st.one_of(st.floats(-90, 150), st.integers(-90, 150).map(float)),
        y=st.one_of(st.floats(-90, 150), st.integers(-90, 150).map(lambda y: y + 0.5)),
        size=st.one_of(st.floats(0.01, 4), st.sampled_from([0.25, 0.5, 1.0, 2.0])),
    ),
    max_size=7,
)


@given(PASTES, RES, SEEDS)
@settings(deadline=None, max_examples=200)
def test_occluders_are_blended_as_described(pastes: list[Paste], res: int, seed: int) -> None:
    """Several over each other, over the edges and beyond them."""
    objects, image = cut_outs(seed), colourful(res, res, seed)
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = image.copy()
    for one in pastes:
        reference.paste(expected, objects[one.cut_out], one)
    for portable in (False, True):
        made = drawer(res, ImageKind.UINT8, portable)
        found = drawn(made, b"", (res, res), whole, objects=objects, pastes=pastes, decoded=image)
        assert np.array_equal(found, expected)


@given(st.lists(st.floats(0, 3, width=32), min_size=3, max_size=3), RES, SEEDS)
@settings(deadline=None, max_examples=60)
def test_normalised_images_are_the_references(factors: list[float], res: int, seed: int) -> None:
    """float32 to the bit, and bfloat16 as torch rounds it; no FMA anywhere."""
    torch = pytest.importorskip("torch")
    image = colourful(res, res, seed)
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = reference.normalised(image, factors, MEAN, STD)
    rounded = (
        torch.from_numpy(expected).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    )
    for portable in (False, True):
        for kind, wanted in ((ImageKind.FLOAT32, expected), (ImageKind.BFLOAT16, rounded)):
            made = drawer(res, kind, portable)
            found = drawn(made, b"", (res, res), whole, factors=factors, decoded=image)
            assert np.array_equal(found, wanted)


def test_any_number_of_threads_and_either_path_give_the_same() -> None:
    """A batch as the stream makes it, occluders included."""
    rng = np.random.default_rng(7)
    count, res = 41, 64
    sizes = rng.integers(20, 200, (count, 2))
    jpegs = Jpegs.of([encode(colourful(h, w, h * w), 85) for h, w in sizes.tolist()])
    turned = rng.uniform(-np.pi, np.pi, count)
    linear = np.stack([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    linear = linear.transpose(2, 0, 1) * rng.uniform(0.3, 3, count)[:, None, None]
    middle = sizes[:, ::-1] / 2 - linear @ np.full(2, res / 2)
    affines = np.concatenate([linear, middle[:, :, None]], 2)
    pastes = np.zeros(3 * count, PASTE)
    for name, high in (("x", res), ("y", res), ("size", 1.5)):
        pastes[name] = rng.uniform(0.1, high, len(pastes))
    pastes["cut_out"] = rng.integers(0, 5, len(pastes))
    objects, factors = CutOuts(cut_outs(3)), rng.uniform(0.6, 1.4, (count, 3)).astype(np.float32)
    for kind in ImageKind:
        found = set()
        for threads, portable in ((1, False), (2, False), (5, False), (1, True), (5, True)):
            made = Drawer(res, kind, mean=MEAN, deviation=STD, threads=threads, portable=portable)
            outs = np.empty((count, *kind.shape(res)), kind.dtype)
            codes, _ = made.draw(
                jpegs,
                sizes.astype(np.int32),
                affines,
                factors,
                outs,
                np.arange(count),
                cut_outs=objects,
                pastes=pastes,
                paste_spans=np.array([[3 * number, 3] for number in range(count)]),
            )
            assert not codes.any()
            found.add(outs.tobytes())
        assert len(found) == 1
