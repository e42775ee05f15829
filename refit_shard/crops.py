"""Pictures of augmented samples, as training sees them, with their skeletons."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Augmentation, select, single
from refit_shard.loaders.items.making import render
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.items.policy import AugmentationPolicy, draw
from refit_shard.shards_spec.reader import Sample
from refit_shard.sheet import Image, Points, draw_skeleton, fit

# Fields that in_words() prints in its own form (flip, rot, sc, occluders), or leaves out because
# the picture shows them (pn).
_SAID = ("flip", "rot", "sc", "pn", "occluders")


def item_crop(image: NDArray[np.float32], keypoints: Points) -> Image:
    """An item's image with its skeleton, as a cell of a contact sheet.

    Args:
        image: (3, res, res) RGB, normalised with the mean and standard deviation of ImageNet.
        keypoints: (49, 3) x and y in -1 … 1, confidence.
    """
    pixels = image.transpose(1, 2, 0) * STD + MEAN
    cell, factor = fit(np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8))
    points = np.array(keypoints)
    points[:, :2] = (points[:, :2] + 1) / 2 * pixels.shape[0] * factor - 0.5
    draw_skeleton(cell, points)
    return cell


def augmented_crop(
    sample: Sample, augmentation: Augmentation, res: int, occluders: Occluders | None
) -> Image:
    """A sample augmented with the given parameters and its skeleton, as a cell of a contact sheet.

    Raises:
        ShardError, FrameError: the labels or the image are damaged.
        UsageError: the augmented crop reaches beyond the stored crop.
    """
    item: dict[str, Any] = render(sample, augmentation, RenderOptions(res=res), occluders=occluders)
    return item_crop(item["img"].numpy(), item["keypoints"].numpy())


def augmentations(
    policy: AugmentationPolicy,
    seed: int,
    first: int,
    count: int,
    occluders: Occluders | None,
    res: int,
) -> list[Augmentation]:
    """The augmentations at positions first … first + count - 1 of a stream with this seed."""
    draws = draw(policy, seed, first, count, objects=len(occluders or ()), res=res)
    return [single(select(draws, [number])) for number in range(count)]


def in_words(augmentation: Augmentation) -> str:
    """An augmentation as a short line, such as ``+12° ×0.93 flip, 3 occluders``."""
    flip = " flip" * augmentation.flip
    pasted = len(augmentation.occluders)
    said = [f"{round(augmentation.rot):+d}° ×{augmentation.sc:.2f}{flip}"]
    if pasted:
        said.append(f"{pasted} occluder{'s' * (pasted > 1)}")
    for field in fields(augmentation):
        value = getattr(augmentation, field.name)
        if field.name not in _SAID and value != field.default:
            shown = f"{value:.2g}" if isinstance(value, float) else str(value)
            said.append(field.name if value is True else f"{field.name} {shown}")
    return ", ".join(said)
