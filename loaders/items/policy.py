"""What augmentation is drawn, and from which distributions; ReFit's by default."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Draws, spans_of
from refit_shard.loaders.items.effects import (
    LEAST_SHARE,
    MAX_SIGMA,
    MOST_ENLARGED,
    PLAIN,
)
from refit_shard.loaders.native import PASTE
from refit_shard.loaders.philox import uniforms
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.values import as_float, hold, number

Floats = NDArray[np.float64]

MAX_OCCLUDERS = 7
# Per position: occlusion, flip, two for rotation, two for scale, three channels, number of
# occluders, then object, x, y and size of each; rounded up to whole Philox counters.
_BASE = 10
_WORDS = 40
# Per position, of a stream of its own: the body, downscaling and its share, blur and its sigma,
# gray, tone, brightness, contrast; rounded up likewise.
_LOOK_WORDS = 12


# The largest value of each number of a policy, and of each span.
_NUMBERS = {
    **{"rot_sigma": 1e3, "rot_clip": 180.0, "scale_sigma": 10.0, "scale_clip": 0.99},
    **dict.fromkeys(("flip", "colour", "occlude", "upper_body", "lower_body"), 1.0),
    **dict.fromkeys(("downscale", "blur", "gray", "tone", "brightness", "contrast"), 1.0),
}
_SPANS = {"occluder_size": 4.0, "downscale_share": 1.0, "blur_sigma": MAX_SIGMA}


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """Distributions of the augmentation parameters. The defaults are ReFit's; augmentations that
    ReFit lacks have probability 0. All are drawn independently.

    Args:
        rot_sigma: Standard deviation of the rotation, degrees; normal, mean 0.
        rot_clip: Rotations are clipped to ± this, degrees.
        scale_sigma: Standard deviation of the factor on the box's side; normal, mean 1.
        scale_clip: The factor is clipped to 1 ± this.
        flip: Probability of a mirror image.
        colour: Each channel's factor is uniform in 1 ± ``colour``.
        occlude: Probability of 1 to 7 pasted occluders.
        occluder_size: Least and largest factor on an occluder's own size.
        upper_body: Probability of a crop to the upper body.
        lower_body: Probability of a crop to the lower body; both together at most 1.
        downscale: Probability of scaling the image down and up again, which loses detail.
        downscale_share: Least and largest share of the side that is scaled down to.
        blur: Probability of a Gaussian blur.
        blur_sigma: Least and largest sigma of it, output px.
        gray: Probability of an image without colour; its channels then share one factor.
        tone: Probability of a change of both contrast and brightness.
        brightness: Uniform in ± ``brightness``; 1 is white.
        contrast: Uniform in 1 ± ``contrast``.

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
    upper_body: float = 0.0
    lower_body: float = 0.0
    downscale: float = 0.0
    downscale_share: tuple[float, float] = field(default=(0.5, 0.9))
    blur: float = 0.0
    blur_sigma: tuple[float, float] = field(default=(0.5, 2.0))
    gray: float = 0.0
    tone: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        for name, most in _NUMBERS.items():
            value = number(f"AugmentationPolicy: {name}", getattr(self, name), 0.0, most)
            hold(self, **{name: value})
        for name, most in _SPANS.items():
            given = getattr(self, name)
            span = tuple(map(as_float, given)) if isinstance(given, Sequence) else ()
            if len(span) != 2 or not 0.0 < span[0] <= span[1] <= most:
                raise UsageError(
                    f"AugmentationPolicy: {name} must be (low, high) in 0 to {most:g}, got {given}"
                )
            hold(self, **{name: span})
        if self.upper_body + self.lower_body > 1.0 + 1e-9:
            raise UsageError(
                "AugmentationPolicy: upper_body and lower_body are shares of all samples, 1 in all "
                f"at most; got {self.upper_body:g} and {self.lower_body:g}"
            )

    @property
    def crops_bodies(self) -> bool:
        """Whether it shows halves of bodies."""
        return self.upper_body + self.lower_body > 0

    @property
    def has_look(self) -> bool:
        """Whether it draws anything that ReFit does not."""
        return self.crops_bodies or max(self.downscale, self.blur, self.gray, self.tone) > 0

    def check_set(self, manifest: Manifest, res: int, where: str) -> None:
        """Check that a set's crops have room and pixels enough for all that the policy may draw.

        Args:
            manifest: The set's.
            res: Side of the output images, pixels.
            where: What errors call the set.

        Raises:
            UsageError: its crops hold too little of their frames, or too few pixels.
        """
        self.check_envelope(manifest.envelope, where)
        if not manifest.plan.get("cropped"):  # else a build can give them no more pixels
            self.check_pixels(manifest.box_px, res, where)

    def check_envelope(self, envelope: Envelope, where: str) -> None:
        """Check that stored crops have room for all that the policy may draw.

        Args:
            envelope: How much the crops hold beyond their boxes.
            where: What errors call the set of shards.

        Raises:
            UsageError: the policy is wider than the envelope.
        """
        scale = 1.0 + (self.scale_clip if self.scale_sigma > 0 else 0.0)
        if scale > envelope.scale + 1e-9:
            wider = f", or build them with --envelope {scale:g}" if envelope.rotation else ""
            raise UsageError(
                f"{where}: the crops hold boxes up to {envelope.scale:g} times as wide, the "
                f"policy draws up to {scale:g}; lower scale_clip or pass augment=False{wider}"
            )
        if self.rot_sigma > 0 and self.rot_clip > 0 and not envelope.rotation:
            raise UsageError(
                f"{where}: the crops hold no room for rotation, the policy turns up to "
                f"{self.rot_clip:g} degrees; set rot_sigma=0 or pass augment=False"
            )

    def check_pixels(self, box_px: int, res: int, where: str) -> None:
        """Refuse crops to halves of bodies where images of side ``res`` would be blown up from too
        few stored pixels; ``box_px`` of them hold a whole box of ``where``.

        Raises:
            UsageError: stored pixels would be enlarged more than three times.
        """
        least = LEAST_SHARE * (1.0 - (self.scale_clip if self.scale_sigma > 0 else 0.0))
        if self.crops_bodies and res > MOST_ENLARGED * least * box_px:
            raise UsageError(
                f"{where}: a crop to a half of the body shows down to {least * box_px:.4g} of the "
                f"{box_px} px that hold a box, {res / (least * box_px):.3g} times enlarged at "
                f"res={res}, at most {MOST_ENLARGED:g}; build it with --box-px "
                f"{math.ceil(res / (MOST_ENLARGED * least))} or more, lower res or scale_clip, or "
                "set upper_body=0 and lower_body=0"
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
    return made, spans_of(counts)


def _looks(policy: AugmentationPolicy, seed: int, first: int, count: int) -> NDArray[np.void]:
    """What is drawn beside ReFit's parameters, (n,) of LOOK."""
    u = uniforms(seed, "look", first, count, _LOOK_WORDS).T
    made = np.full(count, PLAIN)
    halves = policy.upper_body, policy.upper_body + policy.lower_body
    made["body_crop"] = np.where(u[0] < halves[0], 1, np.where(u[0] < halves[1], 2, 0))
    for name, (low, high), on, place in (
        ("downscale", policy.downscale_share, u[1] < policy.downscale, u[2]),
        ("blur", policy.blur_sigma, u[3] < policy.blur, u[4]),
        ("brightness", (-policy.brightness, policy.brightness), u[6] < policy.tone, u[7]),
        ("contrast", (1 - policy.contrast, 1 + policy.contrast), u[6] < policy.tone, u[8]),
    ):
        made[name][on] = (low + (high - low) * place)[on]
    made["gray"] = u[5] < policy.gray
    return made


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
    pn = (1.0 + policy.colour * (2.0 * u[:, 6:9] - 1.0)).astype(np.float32)
    look = _looks(policy, seed, first, count) if policy.has_look else None
    if look is not None:
        pn = np.where(look["gray"][:, None] > 0, pn[:, 1:2], pn)  # what is gray stays gray
    return Draws(
        occ=occ,
        flip=u[:, 1] < policy.flip,
        rot=np.clip(rot, -policy.rot_clip, policy.rot_clip),
        sc=np.clip(sc, 1.0 - policy.scale_clip, 1.0 + policy.scale_clip),
        pn=pn,
        pastes=pastes,
        spans=spans,
        look=look,
    )
