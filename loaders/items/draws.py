"""The parameters of items: what is drawn of each, or given."""

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
    """One cut-out to be pasted onto an image.

    Args:
        index: Its number among the :class:`refit_shard.Occluders`, from 0.
        x: Centre, pixels of the output image.
        y: Centre, pixels of the output image.
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
        flip: Whether the item is mirrored left to right, after rotation and scale.
        rot: Rotation in degrees, counter-clockwise on the screen.
        sc: Factor on the side of the box that is shown.
        pn: Factors of the R, G and B channels, applied last.
        occluders: Cut-outs, pasted in this order after the flip.
        body: ``"upper"`` or ``"lower"`` for a box around that half's visible joints instead of the
            stored box; if too few are visible, the stored box is used.
        downscale: Share of its side that the image is scaled down to, and up again.
        blur: Sigma of a Gaussian blur, output px.
        gray: Whether colour is removed.
        brightness: Added to each level after ``contrast``; 1 is white.
        contrast: Factor on a level's distance from mid-gray.

    Raises:
        UsageError: one of them is out of its bounds.
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
        """Its part of :data:`loaders.items.effects.LOOK`."""
        effects = self.downscale, self.blur, int(self.gray), self.brightness, self.contrast
        return BODIES.index(self.body), *effects


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Parameters of n items: arrays (n,), ``pn`` (n, 3) float32.

    ``pastes`` (m,): occluders, of :data:`PASTE`; ``spans`` (n, 2): of each item the number of its
    first one, and how many it has. ``look`` (n,) of :data:`loaders.items.effects.LOOK`; None where
    nothing is drawn that ReFit does not draw.
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
    """No augmentation: the parameters of an evaluation."""
    return explicit([Augmentation()] * count)


def select(draws: Draws, chosen: ArrayLike) -> Draws:
    """The parameters of some of the items, by their numbers."""
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
    """The parameters of the only item."""
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
    """Of each item the number of its first occluder, and how many it has, (n, 2)."""
    return np.stack([np.cumsum(counts) - counts, counts], 1)


def explicit(augmentations: Sequence[Augmentation]) -> Draws:
    """The given parameters, one an item."""

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
