"""Options for making one item."""

from dataclasses import dataclass
from typing import Literal

from refit_shard.shards_spec.values import differing, hold, one_of, whole


@dataclass(frozen=True, kw_only=True, repr=False)
class RenderOptions:
    """Options for making one item: type and size of the image, and how keypoints are computed.

    Args:
        image: ``"normalized"`` for float32 (3, res, res) normalised with ImageNet's mean and
            standard deviation; ``"bfloat16"`` for the same rounded to the nearest bfloat16;
            ``"uint8"`` for (res, res, 3) before the channel factors, for
            :func:`refit_shard.finalize`.
        res: Side of the image, pixels, 16 to 4096.
        compat: ``"refit"`` for keypoints truncated to whole pixels as in ReFit; None for exact.

    Raises:
        UsageError: a value is outside its bounds.
    """

    image: Literal["normalized", "bfloat16", "uint8"] = "normalized"
    res: int = 256
    compat: Literal["refit"] | None = None

    def __post_init__(self) -> None:
        one_of("image", self.image, ("normalized", "bfloat16", "uint8"))
        one_of("compat", self.compat, (None, "refit"))
        hold(self, res=whole("res", self.res, 16, 4096))

    def __repr__(self) -> str:
        return differing(self)
