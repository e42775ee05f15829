"""What augmentation is drawn, and from which distributions; ReFit's by default."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.loaders.native import PASTE
from refit_shard.loaders.philox import uniforms
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.values import as_float, hold, number

Floats = NDArray[np.float64]

MAX_OCCLUDERS = 7
# Per position: occlusion, flip, two for rotation, two for scale, three channels, number of
# occluders, then object, x, y and size of each; rounded up to whole Philox counters.
_BASE = 10
_WORDS = 40


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """One pasted object: its number in the list, its centre in output pixels, its size factor."""

    index: int
    x: float
    y: float
    size: float


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The parameters of one item.

    ``rot``: degrees, counter-clockwise on the screen. ``sc``: factor on the box's side. ``pn``:
    factors of the R, G and B channels. ``occluders``: pasted in this order, after the flip.
    """

    flip: bool = False
    rot: float = 0.0
    sc: float = 1.0
    pn: tuple[float, float, float] = (1.0, 1.0, 1.0)
    occluders: tuple[Occlusion, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """Distributions of the parameters; the defaults are ReFit's.

    rot = clip(N(0, ``rot_sigma``), ±``rot_clip``) degrees; sc = clip(N(1, ``scale_sigma``),
    1 ± ``scale_clip``); each channel's factor is uniform in 1 ± ``colour``; with probability
    ``occlude`` 1 to 7 occluders of size factor ``occluder_size`` are pasted.

    Raises:
        UsageError: a value is out of its bounds.
    """

    rot_sigma: float = 30.0
    rot_clip: float = 60.0
    scale_sigma: float = 0.25
    scale_clip: float = 0.25
    flip: float = 0.5
    colour: float = 0.4
    occlude: float = 0.5
    occluder_size: tuple[float, float] = field(default=(0.2, 1.0))

    def __post_init__(self) -> None:
        for name, high in (
            *(("rot_sigma", 1e3), ("rot_clip", 180.0), ("scale_sigma", 10.0)),
            *(("scale_clip", 0.99), ("flip", 1.0), ("colour", 1.0), ("occlude", 1.0)),
        ):
            value = number(f"AugmentationPolicy: {name}", getattr(self, name), 0.0, high)
            hold(self, **{name: value})
        low, high = map(as_float, self.occluder_size)
        if not 0.0 < low <= high <= 4.0:
            raise UsageError(
                "AugmentationPolicy: occluder_size must be (low, high) in 0 to 4, "
                f"got {self.occluder_size}"
            )
        hold(self, occluder_size=(low, high))

    def check_envelope(self, envelope: Envelope, where: str) -> None:
        """Refuse to draw what the stored crops of ``where`` do not hold.

        Raises:
            UsageError: the policy is wider than the envelope.
        """
        scale = 1.0 + (self.scale_clip if self.scale_sigma > 0 else 0.0)
        if scale > envelope.scale + 1e-9:
            raise UsageError(
                f"{where}: the crops hold boxes up to {envelope.scale:g} times as wide, the "
                f"policy draws up to {scale:g}; lower scale_clip or pass augment=False"
            )
        if self.rot_sigma > 0 and self.rot_clip > 0 and not envelope.rotation:
            raise UsageError(
                f"{where}: the crops hold no room for rotation, the policy turns up to "
                f"{self.rot_clip:g} degrees; set rot_sigma=0 or pass augment=False"
            )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Parameters of n items: arrays (n,), ``pn`` (n, 3) float32.

    ``pastes`` (m,): occluders, of :data:`PASTE`; ``spans`` (n, 2): of each item the number of its
    first one, and how many it has.
    """

    occ: NDArray[np.bool_]
    flip: NDArray[np.bool_]
    rot: Floats
    sc: Floats
    pn: NDArray[np.float32]
    pastes: NDArray[np.void]
    spans: NDArray[np.int64]

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
    )


def single(draws: Draws) -> Augmentation:
    """The parameters of the only item."""
    red, green, blue = draws.pn[0].tolist()
    return Augmentation(
        flip=bool(draws.flip[0]),
        rot=float(draws.rot[0]),
        sc=float(draws.sc[0]),
        pn=(red, green, blue),
        occluders=draws.occlusion[0],
    )


def _normal(first: Floats, second: Floats) -> Floats:
    """Box and Muller's transform: always two uniforms, whatever their values."""
    values: Floats = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * math.pi * second)
    return values


def _pastes(
    values: Floats, occ: NDArray[np.bool_], policy: AugmentationPolicy, objects: int, res: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The occluders of the items that ``occ`` names, and each item's, as in :class:`Draws`.

    ``values``: an item's uniforms: how many, then object, x, y and size of each.
    """
    low, high = policy.occluder_size
    counts = np.where(occ, 1 + (values[:, 0] * MAX_OCCLUDERS).astype(np.int64), 0)
    every = values[:, 1 : 1 + 4 * MAX_OCCLUDERS].reshape(-1, MAX_OCCLUDERS, 4)
    pick, x, y, size = every[np.arange(MAX_OCCLUDERS) < counts[:, None]].T
    made = np.empty(len(pick), PASTE)
    made["cut_out"] = pick * objects
    made["x"], made["y"], made["size"] = x * res, y * res, low + (high - low) * size
    return made, _spans(counts)


def _spans(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([np.cumsum(counts) - counts, counts], 1)


def draw(
    policy: AugmentationPolicy, seed: int, first: int, count: int, *, objects: int, res: int
) -> Draws:
    """The parameters at positions first … first + count - 1 of the stream with this seed.

    ``objects`` is the number of occluders at hand; with none, nothing is occluded.
    """
    u = uniforms(seed, "augment", first, count, _WORDS)
    occ = (u[:, 0] < policy.occlude) & (objects > 0)
    pastes, spans = _pastes(u[:, _BASE - 1 :], occ, policy, objects, res)
    rot = policy.rot_sigma * _normal(u[:, 2], u[:, 3])
    sc = 1.0 + policy.scale_sigma * _normal(u[:, 4], u[:, 5])
    return Draws(
        occ=occ,
        flip=u[:, 1] < policy.flip,
        rot=np.clip(rot, -policy.rot_clip, policy.rot_clip),
        sc=np.clip(sc, 1.0 - policy.scale_clip, 1.0 + policy.scale_clip),
        pn=(1.0 + policy.colour * (2.0 * u[:, 6:9] - 1.0)).astype(np.float32),
        pastes=pastes,
        spans=spans,
    )


def explicit(augmentations: Sequence[Augmentation]) -> Draws:
    """The given parameters, one an item."""

    def column(name: str, dtype: Any) -> NDArray[Any]:
        return np.array([getattr(one, name) for one in augmentations], dtype)

    pasted = [paste for one in augmentations for paste in one.occluders]
    return Draws(
        occ=np.array([bool(one.occluders) for one in augmentations], bool),
        flip=column("flip", bool),
        rot=column("rot", np.float64),
        sc=column("sc", np.float64),
        pn=column("pn", np.float32),
        pastes=np.array([(o.x, o.y, o.size, o.index) for o in pasted], PASTE),
        spans=_spans(np.array([len(one.occluders) for one in augmentations], np.int64)),
    )
