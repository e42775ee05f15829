"""Augmentation parameters of items, drawn from a policy or given explicitly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.loaders.items.effects import BODIES, LOOK, MAX_CONTRAST, MAX_SIGMA, PLAIN, Body
from refit_shard.loaders.native import PASTE
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.values import number, one_of

Floats = NDArray[np.float64]

MAX_ROT = 1e6  # degrees
MAX_SC = 100.0
MAX_FACTOR = 1e6  # of a channel


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """One cut-out to paste onto an image.

    Args:
        index: Index of the cut-out in :class:`refit_shard.Occluders`, from 0.
        x: x of its centre, pixels of the output image.
        y: y of its centre, pixels of the output image.
        size: Factor on the cut-out's width and height.
    """

    index: int
    x: float
    y: float
    size: float


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentation parameters of one item.

    Args:
        flip: True to mirror the image left to right, after rotation and scale.
        rot: Rotation in degrees, counter-clockwise on the screen.
        sc: Factor on the side of the box that is shown.
        pn: Factors of the R, G and B channels, applied last.
        occluders: Cut-outs, pasted in this order after the flip.
        body: ``"upper"`` or ``"lower"`` to show a box around the visible joints of that half of the
            body instead of the stored box. If too few joints are visible the stored box is shown.
        downscale: Side of the image after scaling down, as a share of its side, 0 to 1; it is then
            scaled up again. 1 changes nothing.
        blur: Sigma of a Gaussian blur, output pixels.
        gray: True for a gray image.
        brightness: Added to each pixel value after ``contrast``, -1 to 1, where 1 is the difference
            between black and white.
        contrast: Factor on the difference of each pixel value from mid-gray, 0 to 4.

    Raises:
        UsageError: ``body``, ``downscale``, ``blur``, ``brightness`` or ``contrast`` is outside its
            bounds.
    """

    flip: bool = False
    rot: float = 0.0
    sc: float = 1.0
    pn: tuple[float, float, float] = (1.0, 1.0, 1.0)
    occluders: tuple[Occlusion, ...] = ()
    body: Body = "whole"
    downscale: float = 1.0
    blur: float = 0.0
    gray: bool = False
    brightness: float = 0.0
    contrast: float = 1.0

    def __post_init__(self) -> None:
        one_of("Augmentation: body", self.body, BODIES)
        for name, low, high in (
            *(("downscale", 0.0, 1.0), ("blur", 0.0, MAX_SIGMA)),
            *(("brightness", -1.0, 1.0), ("contrast", 0.0, MAX_CONTRAST)),
            *(("rot", -MAX_ROT, MAX_ROT), ("sc", 1 / MAX_SC, MAX_SC)),
        ):
            number(f"Augmentation: {name}", getattr(self, name), low, high)
        if len(self.pn) != len("RGB"):
            raise UsageError(f"Augmentation: pn: must be three numbers, got {self.pn!r:.80}")
        for factor in self.pn:
            number("Augmentation: pn", factor, 0.0, MAX_FACTOR)

    @property
    def look(self) -> tuple[int, float, float, int, float, float]:
        """The body crop and effects as a row of :data:`loaders.items.effects.LOOK`."""
        effects = self.downscale, self.blur, int(self.gray), self.brightness, self.contrast
        return BODIES.index(self.body), *effects


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Augmentation parameters of n items: arrays (n,), ``pn`` (n, 3) float32.

    ``pastes`` (m,) of :data:`PASTE`: the occluders of all items, item after item. ``spans`` (n, 2):
    for each item the index of its first occluder in ``pastes``, and how many it has. ``look`` (n,)
    of :data:`loaders.items.effects.LOOK`, or None if no effect is used that ReFit does not have.
    """

    occ: NDArray[np.bool_]
    flip: NDArray[np.bool_]
    rot: Floats
    sc: Floats
    pn: NDArray[np.float32]
    pastes: NDArray[np.void]
    spans: NDArray[np.int64]
    look: NDArray[np.void] | None = None

    @property
    def occlusion(self) -> tuple[tuple[Occlusion, ...], ...]:
        """The occluders of each item."""
        every = [
            Occlusion(index=index, x=x, y=y, size=size)
            for x, y, size, index in self.pastes.tolist()
        ]
        return tuple(tuple(every[first : first + n]) for first, n in self.spans.tolist())


def neutral(count: int) -> Draws:
    """Parameters of ``count`` items without augmentation, as evaluation uses them."""
    return explicit([Augmentation()] * count)


def select(draws: Draws, chosen: ArrayLike) -> Draws:
    """The parameters of the items whose indices are ``chosen``."""
    index = np.asarray(chosen)
    return Draws(
        occ=draws.occ[index],
        flip=draws.flip[index],
        rot=draws.rot[index],
        sc=draws.sc[index],
        pn=draws.pn[index],
        pastes=draws.pastes,
        spans=draws.spans[index],
        look=None if draws.look is None else draws.look[index],
    )


def single(draws: Draws) -> Augmentation:
    """The parameters of a single item."""
    red, green, blue = draws.pn[0].tolist()
    look = PLAIN if draws.look is None else draws.look[0]
    body, downscale, blur, gray, brightness, contrast = look.tolist()
    return Augmentation(
        flip=bool(draws.flip[0]),
        rot=float(draws.rot[0]),
        sc=float(draws.sc[0]),
        pn=(red, green, blue),
        occluders=draws.occlusion[0],
        body=BODIES[body],
        downscale=downscale,
        blur=blur,
        gray=bool(gray),
        brightness=brightness,
        contrast=contrast,
    )


def spans_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Spans (n, 2), index of the first occluder and number, from the numbers (n,) of all items."""
    return np.stack([np.cumsum(counts) - counts, counts], 1)


def explicit(augmentations: Sequence[Augmentation]) -> Draws:
    """The given parameters of n items as arrays."""

    def column(name: str, dtype: Any) -> NDArray[Any]:
        return np.array([getattr(one, name) for one in augmentations], dtype)

    pasted = [paste for one in augmentations for paste in one.occluders]
    look = np.array([one.look for one in augmentations], LOOK)
    return Draws(
        occ=np.array([bool(one.occluders) for one in augmentations], bool),
        flip=column("flip", bool),
        rot=column("rot", np.float64),
        sc=column("sc", np.float64),
        pn=column("pn", np.float32),
        pastes=np.array([(o.x, o.y, o.size, o.index) for o in pasted], PASTE),
        spans=spans_of(np.array([len(one.occluders) for one in augmentations], np.int64)),
        look=look if (look != PLAIN).any() else None,
    )
