"""Options of an item, checked at once."""

from dataclasses import dataclass
from typing import Literal

from refit_shard.shards_spec.values import differing, hold, one_of, whole


@dataclass(frozen=True, kw_only=True, repr=False)
class RenderOptions:
    """How one item is made.

    Args:
        image: ``"normalized"`` is float32 (3, res, res), ``"bfloat16"`` is the same rounded to the
            nearest bfloat16, ``"uint8"`` is (res, res, 3) before the channel factors, for
            :func:`refit_shard.finalize`.
        res: Side of the image, pixels.
        compat: ``"refit"`` for keypoints truncated to whole pixels, as ReFit's are.

    Raises:
        UsageError: a value is not one of these.
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
