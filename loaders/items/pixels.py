"""The images of a batch, decoded, warped and augmented by :mod:`loaders.native`."""

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Draws
from refit_shard.loaders.items.effects import native_effects
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.loaders.native import Code, Drawer, ImageKind, Jpegs, failure
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError, RefitShardError
from refit_shard.shards_spec.geometry import (
    box_side,
    determinants,
    output_to_source,
    source_to_stored,
)

Image = NDArray[np.uint8]
Ints = NDArray[np.int64]

# ImageNet's mean and standard deviation of R, G, B in 0 … 1, as ReFit and its backbones use them.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

# Columns that decide what an image shows.
SHOWN = ("center", "scale", "window", "k", "height", "width")

_FARTHEST = 1e9  # px
_LEAST_AREA = 1e-12  # stored pixels per output pixel

_drawers = threading.local()


_KINDS = {
    "normalized": ImageKind.FLOAT32,
    "bfloat16": ImageKind.BFLOAT16,
    "uint8": ImageKind.UINT8,
}


def image_kind(options: RenderOptions) -> ImageKind:
    """The native library's image kind for the options."""
    return _KINDS[options.image]


def _drawer(res: int, kind: ImageKind) -> Drawer:
    """This thread's drawer, which is kept because it reuses its memory from batch to batch."""
    mine: dict[tuple[int, ImageKind], Drawer] = _drawers.__dict__.setdefault("made", {})
    if (res, kind) not in mine:
        mine[res, kind] = Drawer(res, kind, mean=MEAN, deviation=STD)
    return mine[res, kind]


def affines(columns: Mapping[str, NDArray[Any]], draws: Draws, res: int) -> NDArray[np.float64]:
    """Maps (n, 2, 3) from output pixels to stored pixels."""
    to_source = output_to_source(
        columns["center"], box_side(draws.sc * columns["scale"]), draws.rot, draws.flip, res
    )
    return source_to_stored(to_source, columns["window"], columns["k"])


def usable(
    maps: NDArray[np.float64], sides: NDArray[np.int32], scale: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """True for maps (n, 2, 3) that are finite and invertible, with valid sides (n, 2) and scale.

    No build writes other maps, but shards may come from other sources.
    """
    area = np.abs(determinants(maps))
    near = np.abs(maps).max((1, 2)) < _FARTHEST
    image = ((sides > 0) & (sides <= jpeg.MAX_SIDE)).all(1)
    return np.asarray(image & near & (area > _LEAST_AREA) & (scale > 0))  # NaN is none of these


def make_images(
    options: RenderOptions,
    jpegs: Jpegs,
    columns: Mapping[str, NDArray[Any]],
    draws: Draws,
    occluders: Occluders | None,
    outs: NDArray[Any],
    places: Ints,
) -> dict[int, RefitShardError]:
    """Draw the image of the i-th stored JPEG into ``outs[places[i]]``.

    ``columns`` has those of :data:`SHOWN`. Returns the errors of images that cannot be made, by i.
    """
    sides = np.stack([columns["height"], columns["width"]], 1)
    with np.errstate(over="ignore", invalid="ignore"):
        maps = affines(columns, draws, options.res)
        maps[~usable(maps, sides, columns["scale"])] = np.nan
    cut_outs = None if occluders is None else occluders.cut_outs
    drawer = _drawer(options.res, image_kind(options))
    draw = partial(drawer.draw, outs=outs, cut_outs=cut_outs, pastes=draws.pastes)
    effects = None if draws.look is None else native_effects(draws.look, options.res)
    codes, details = draw(
        jpegs, sides, maps, draws.pn, places=places, paste_spans=draws.spans, effects=effects
    )
    others = np.flatnonzero(codes == Code.NOT_OURS).tolist()
    decoded, failed = _decode_others(jpegs, sides, others)
    if decoded:
        again = np.array(list(decoded))
        codes[again], details[again] = draw(
            *(jpegs.select(again), sides[again], maps[again], draws.pn[again]),
            places=places[again],
            paste_spans=draws.spans[again],
            effects=None if effects is None else effects[again],
            decoded=dict(enumerate(decoded.values())),
        )
    for number in np.flatnonzero(codes).tolist():
        if number not in failed:
            failed[number] = failure(int(codes[number]), int(details[number]), "an image")
    return failed


def _decode_others(
    jpegs: Jpegs, sides: NDArray[np.int32], others: Sequence[int]
) -> tuple[dict[int, Image], dict[int, RefitShardError]]:
    """Decode JPEGs that the native decoder does not support: whole images and errors, by number."""
    decoded: dict[int, Image] = {}
    failed: dict[int, RefitShardError] = {}
    for number in others:
        data, (height, width) = jpegs.data(number), sides[number].tolist()
        try:
            jpeg.check_size(data, height, width)
            decoded[number] = jpeg.decode(data)
        except FrameError as error:
            failed[number] = error
    return decoded, failed
