"""Augmentation that ReFit does not have: crops to halves of the body, and effects of a camera."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.native import EFFECTS, MAX_RADIUS

Floats = NDArray[np.float64]

Body = Literal["whole", "upper", "lower"]
BODIES: tuple[Body, ...] = get_args(Body)
MAX_SIGMA = MAX_RADIUS / 3  # px; the kernel is cut off at three sigmas
MAX_CONTRAST = 4.0
# The smallest side of a crop to a half of the body, as a share of the stored box's side; and how
# many times such crops may enlarge stored pixels.
LEAST_SHARE = 0.5
MOST_ENLARGED = 3.0

# One item: the index in BODIES of what is shown; the share of the side that the image is scaled
# down to; sigma of the blur, px; 1 if it is gray; brightness and contrast of pixel values in 0 … 1.
LOOK = np.dtype(
    [
        ("body_crop", np.int64),
        ("downscale", np.float64),
        ("blur", np.float64),
        ("gray", np.int64),
        ("brightness", np.float64),
        ("contrast", np.float64),
    ]
)
PLAIN = np.array((0, 1.0, 0.0, 0, 0.0, 1.0), LOOK)

_UNIT = 256  # 1.0 in the fixed-point weights, factors and pixel values
_NO_BLUR = 0.05  # px; at this sigma the weight of the next pixel is below 1e-86


def kernels(sigmas: Floats) -> NDArray[np.uint16]:
    """Gaussian kernels (n, MAX_RADIUS + 1) for sigmas (n,) in px, in 256ths.

    Entry k is the weight of each of the two pixels k px away; entry 0 is the pixel's own weight. A
    whole kernel, both sides and the middle, sums to 256.
    """
    distance = np.arange(MAX_RADIUS + 1) / np.maximum(sigmas, _NO_BLUR)[:, None]
    weights = np.exp(-0.5 * distance**2)
    weights /= 2.0 * weights.sum(1, keepdims=True) - weights[:, :1]
    # Cumulated tails are rounded; rounding errors of single weights would add up in the middle.
    tails = np.cumsum(weights[:, ::-1], 1)[:, ::-1]
    whole = np.floor(_UNIT * tails + 0.5)
    made = -np.diff(whole, append=0.0)
    made[:, 0] = _UNIT - 2 * whole[:, 1]
    return made.astype(np.uint16)


def native_effects(look: NDArray[np.void], res: int) -> NDArray[np.void]:
    """The effects on images of side ``res`` in the library's units, (n,) of :data:`EFFECTS`."""
    made = np.zeros(len(look), EFFECTS)
    made["cells"] = np.clip(np.floor(look["downscale"] * res + 0.5), 1, res)
    made["blur"] = kernels(look["blur"])
    made["gray"] = look["gray"]
    made["contrast"] = np.floor(look["contrast"] * _UNIT + 0.5)
    made["brightness"] = np.floor(look["brightness"] * 255 * _UNIT + 0.5)
    return made


def look_labels(look: NDArray[np.void]) -> dict[str, NDArray[Any]]:
    """Keys of a batch with the values of each item's body crop and effects."""
    return {
        name: look[name].astype(np.float32 if look.dtype[name].kind == "f" else np.int64)
        for name in LOOK.names or ()
    }
