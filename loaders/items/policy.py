"""The augmentation policy: the distributions of an item's parameters, ReFit's by default."""

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
# Random words for each position: occlusion, flip, two for rotation, two for scale, three channels,
# number of occluders, then object, x, y and size of each; rounded up to whole Philox counters.
_BASE = 10
_WORDS = 40
# Random words for each position of a second stream: body crop, downscaling and its share, blur and
# its sigma, gray, tone, brightness, contrast; rounded up to whole Philox counters.
_LOOK_WORDS = 12


# The largest allowed value of each number of a policy, and of each range.
_NUMBERS = {
    **{"rot_sigma": 1e3, "rot_clip": 180.0, "scale_sigma": 10.0, "scale_clip": 0.99},
    **dict.fromkeys(("flip", "colour", "occlude", "upper_body", "lower_body"), 1.0),
    **dict.fromkeys(("downscale", "blur", "gray", "tone", "brightness", "contrast"), 1.0),
}
_SPANS = {"occluder_size": 4.0, "downscale_share": 1.0, "blur_sigma": MAX_SIGMA}


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """Distributions from which augmentation is drawn; the defaults are ReFit's.

    Effects that ReFit does not have are off by default (probability 0). All effects are drawn
    independently of each other.

    Args:
        rot_sigma: Standard deviation of the rotation in degrees, which is normal with mean 0.
        rot_clip: Rotations are clipped to ± ``rot_clip`` degrees.
        scale_sigma: Standard deviation of the factor on the box's side, which is normal with
            mean 1.
        scale_clip: The factor is clipped to 1 ± ``scale_clip``.
        flip: Probability of a left-right flip.
        colour: The factor of each colour channel is uniform in 1 ± ``colour``.
        occlude: Probability that 1 to 7 occluders are pasted.
        occluder_size: (lowest, highest) factor on an occluder's own width and height, uniform.
        upper_body: Probability of a crop to the upper body.
        lower_body: Probability of a crop to the lower body; ``upper_body + lower_body`` is at
            most 1.
        downscale: Probability that the image is scaled down and up again, so that it loses detail.
        downscale_share: (lowest, highest) side of the scaled-down image as a share of the image's
            side, uniform.
        blur: Probability of a Gaussian blur.
        blur_sigma: (lowest, highest) sigma of the blur in output pixels, uniform.
        gray: Probability of a gray image; all three channels then get the same colour factor.
        tone: Probability that both brightness and contrast are changed.
        brightness: The change of brightness is uniform in ± ``brightness``, where 1 is the
            difference between black and white.
        contrast: The factor of the contrast is uniform in 1 ± ``contrast``.

    Raises:
        UsageError: a value is outside its bounds.
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
        """True if crops to the upper or lower body may be drawn."""
        return self.upper_body + self.lower_body > 0

    @property
    def has_look(self) -> bool:
        """True if an effect that ReFit does not have may be drawn."""
        return self.crops_bodies or max(self.downscale, self.blur, self.gray, self.tone) > 0

    def check_set(self, manifest: Manifest, res: int, where: str) -> None:
        """Check that a dataset's stored crops are wide enough and have enough pixels.

        Args:
            manifest: The manifest of the dataset's shards.
            res: Side of the output images, pixels.
            where: Name of the dataset in error messages.

        Raises:
            UsageError: the crops are too narrow for the policy, or have too few pixels.
        """
        self.check_envelope(manifest.envelope, where)
        if not manifest.plan.get("cropped"):  # crops of cropped images cannot get more pixels
            self.check_pixels(manifest.box_px, res, where)

    def check_envelope(self, envelope: Envelope, where: str) -> None:
        """Check that stored crops are wide enough for the policy's scales and rotations.

        Args:
            envelope: The largest scale, and if any rotation, that the crops were built for.
            where: Name of the dataset in error messages.

        Raises:
            UsageError: the policy draws larger scales or rotations than the envelope has.
        """
        scale = 1.0 + (self.scale_clip if self.scale_sigma > 0 else 0.0)
        if scale > envelope.scale + 1e-9:
            wider = f", or build the shards with --envelope {scale:g}" if envelope.rotation else ""
            raise UsageError(
                f"{where}: the stored crops have room for scales up to {envelope.scale:g}, the "
                f"policy draws up to {scale:g}; lower scale_clip or pass augment=False{wider}"
            )
        if self.rot_sigma > 0 and self.rot_clip > 0 and not envelope.rotation:
            raise UsageError(
                f"{where}: the stored crops have no room for rotation, the policy draws up to "
                f"{self.rot_clip:g} degrees; set rot_sigma=0 or pass augment=False"
            )

    def check_pixels(self, box_px: int, res: int, where: str) -> None:
        """Check that stored crops have enough pixels for crops to the upper or lower body.

        Args:
            box_px: Stored pixels along the side of a whole box.
            res: Side of the output images, pixels.
            where: Name of the dataset in error messages.

        Raises:
            UsageError: stored pixels would be enlarged more than three times.
        """
        least = LEAST_SHARE * (1.0 - (self.scale_clip if self.scale_sigma > 0 else 0.0))
        if self.crops_bodies and res > MOST_ENLARGED * least * box_px:
            raise UsageError(
                f"{where}: a crop to the upper or lower body may show as few as "
                f"{least * box_px:.4g} of the {box_px} px of a stored box, enlarged "
                f"{res / (least * box_px):.3g} times at res={res}; at most {MOST_ENLARGED:g} times "
                f"is allowed; build the shards with --box-px "
                f"{math.ceil(res / (MOST_ENLARGED * least))} or more, lower res or scale_clip, or "
                "set upper_body=0 and lower_body=0"
            )


def _normal(first: Floats, second: Floats) -> Floats:
    """Normal numbers (mean 0, variance 1) by Box and Muller, each from two uniform numbers."""
    values: Floats = np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * math.pi * second)
    return values


def _pastes(
    values: Floats, occ: NDArray[np.bool_], policy: AugmentationPolicy, objects: int, res: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The occluders of all items, and each item's span of them: ``pastes`` and ``spans`` of
    :class:`Draws`.

    ``values`` (n, 29): the uniform numbers of each item: one for the number of occluders, then
    object, x, y and size of each. ``occ`` (n,): which items have occluders.
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
    """The effects that ReFit does not have, as drawn: (n,) of :data:`LOOK`."""
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

    ``objects``: number of cut-outs to choose from; with 0 nothing is occluded. ``res``: side of the
    output images, pixels.
    """
    u = uniforms(seed, "augment", first, count, _WORDS)
    occ = (u[:, 0] < policy.occlude) & (objects > 0)
    pastes, spans = _pastes(u[:, _BASE - 1 :], occ, policy, objects, res)
    rot = policy.rot_sigma * _normal(u[:, 2], u[:, 3])
    sc = 1.0 + policy.scale_sigma * _normal(u[:, 4], u[:, 5])
    pn = (1.0 + policy.colour * (2.0 * u[:, 6:9] - 1.0)).astype(np.float32)
    look = _looks(policy, seed, first, count) if policy.has_look else None
    if look is not None:
        pn = np.where(
            look["gray"][:, None] > 0, pn[:, 1:2], pn
        )  # one factor for all channels keeps it gray
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
