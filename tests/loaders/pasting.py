"""Cut-outs pasted onto a picture, by the library that draws the batches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refit_shard import Occluders
from refit_shard.loaders.items.draws import Augmentation, Occlusion, explicit
from refit_shard.loaders.native import Drawer, ImageKind, Jpegs

WHOLE = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def pasted(
    image: NDArray[np.uint8], occluders: Occluders, occlusions: Sequence[Occlusion]
) -> NDArray[np.uint8]:
    """A square picture (side, side, 3) with these on it."""
    side = len(image)
    outs = np.zeros((1, side, side, 3), np.uint8)
    draws = explicit([Augmentation(occluders=tuple(occlusions))])
    codes, _ = Drawer(side, ImageKind.UINT8).draw(
        Jpegs.of([b""]),
        np.full((1, 2), side, np.int32),
        WHOLE,
        np.ones((1, 3), np.float32),
        outs,
        np.zeros(1, np.int64),
        cut_outs=occluders.cut_outs,
        pastes=draws.pastes,
        paste_spans=draws.spans,
        decoded={0: image},
    )
    assert codes.tolist() == [0]
    return np.asarray(outs[0])
