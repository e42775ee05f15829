"""Draws images from JPEGs, with occluders and effects, in compiled code."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.loaders.native.interface import (
    BATCH,
    CUT_OUT,
    EFFECTS,
    LEVELS,
    MAX_RES,
    MAX_THREADS,
    PASTE,
    SAMPLE,
    Bytes,
    Floats,
    ImageKind,
    Ints,
    address,
    library,
)
from refit_shard.loaders.native.reading import Jpegs


class CutOuts:
    """RGBA cut-outs (h, w, 4) uint8, with copies at half and quarter size for small pastes."""

    def __init__(self, images: Sequence[Bytes]) -> None:
        self._kept: list[Bytes] = []
        self.table = np.zeros(len(images), CUT_OUT)
        for row, image in zip(self.table, images, strict=True):
            levels = [np.ascontiguousarray(image)]
            while len(levels) < LEVELS and min(levels[-1].shape[:2]) >= 2:
                levels.append(_half(levels[-1]))
            self._kept += levels
            row["height"], row["width"] = image.shape[:2]
            row["levels"] = len(levels)
            row["level"][: len(levels)] = [address(level) for level in levels]

    def __len__(self) -> int:
        return len(self.table)


def _half(image: Bytes) -> Bytes:
    """The image at half size: rounded means of 2 x 2 pixels. Drops the last row or column of an odd
    side.
    """
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    even = image[:height, :width].astype(np.uint16)
    rows = even[::2] + even[1::2]
    made: Bytes = ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    return made


def plain_effects(res: int) -> NDArray[np.void]:
    """The value of :data:`EFFECTS` that changes nothing in an image of side ``res``."""
    made = np.zeros((), EFFECTS)
    made["cells"], made["blur"][0], made["contrast"] = res, 256, 256
    return made


class Drawer:
    """Draws images with ``threads`` native threads; not for several Python threads at once.

    ``mean``, ``deviation``: of R, G, B in 0 … 1, for normalised images. ``portable``: True to avoid
    AVX2.
    """

    def __init__(
        self,
        res: int,
        image: ImageKind,
        *,
        mean: ArrayLike = (0.0, 0.0, 0.0),
        deviation: ArrayLike = (1.0, 1.0, 1.0),
        threads: int = 1,
        portable: bool = False,
    ) -> None:
        if not (1 <= res <= MAX_RES and 1 <= threads <= MAX_THREADS):
            raise ValueError(f"res must be 1 to {MAX_RES}, threads 1 to {MAX_THREADS}")
        self.res, self.image = res, image
        self._batch = np.zeros((), BATCH)
        spread = np.asarray(deviation, np.float64)
        self._batch["scale"] = 1.0 / (255.0 * spread)
        self._batch["shift"] = np.asarray(mean, np.float64) / spread
        self._batch["res"], self._batch["image"], self._batch["portable"] = res, image, portable
        self._space = ctypes.c_void_p(library().refit_open(threads))
        if not self._space:
            raise MemoryError

    def __del__(self) -> None:
        if getattr(self, "_space", None):
            library().refit_close(self._space)

    def draw(
        self,
        jpegs: Jpegs,
        sides: NDArray[np.int32],
        maps: Floats,
        factors: NDArray[np.float32],
        outs: NDArray[Any],
        places: Ints,
        *,
        cut_outs: CutOuts | None = None,
        pastes: NDArray[np.void] | None = None,
        paste_spans: Ints | None = None,
        effects: NDArray[np.void] | None = None,
        decoded: Mapping[int, Bytes] | None = None,
    ) -> tuple[NDArray[np.int32], Ints]:
        """Draw the image of each JPEG; returns codes (n,) and details (n,).

        ``sides`` (n, 2): height and width from the index. ``maps`` (n, 2, 3): affine maps from
        output to stored pixels. ``factors`` (n, 3): of the R, G and B channels. The i-th image is
        written to ``outs[places[i]]``. ``pastes`` (m,) of :data:`PASTE`; ``paste_spans`` (n, 2):
        index of each sample's first paste, and number of its pastes. ``effects`` (n,) of
        :data:`EFFECTS`. ``decoded``: decoded images (height, width, 3) for JPEGs whose code is
        :attr:`Code.NOT_OURS`, by i.
        """
        count = len(jpegs.lengths)
        samples = np.zeros(count, SAMPLE)
        samples["jpeg"] = address(jpegs.memory) + jpegs.begins
        samples["jpeg_length"] = jpegs.lengths
        samples["out"] = self._outs(outs, places)
        samples["map"], samples["factors"] = maps, factors
        samples["height"], samples["width"] = sides[:, 0], sides[:, 1]
        images = {number: np.ascontiguousarray(one) for number, one in (decoded or {}).items()}
        for number, one in images.items():
            if one.dtype != np.uint8 or one.shape != (*sides[number].tolist(), 3):
                raise ValueError(f"decoded[{number}] must be uint8 of its size, got {one.shape}")
            samples["rgb"][number] = address(one)
        batch = self._batch.copy()
        if pastes is not None and paste_spans is not None and cut_outs is not None:
            pastes = np.ascontiguousarray(pastes, PASTE)
            samples["first_paste"], samples["pastes"] = paste_spans.T
            batch["pastes"], batch["paste_count"] = address(pastes), len(pastes)
            batch["cut_outs"], batch["cut_out_count"] = address(cut_outs.table), len(cut_outs)
        if effects is not None:
            effects = np.ascontiguousarray(effects, EFFECTS)
            changed = np.flatnonzero(effects != plain_effects(self.res))
            samples["effects"][changed] = address(effects) + changed * EFFECTS.itemsize
        batch["samples"], batch["count"] = address(samples), count
        library().refit_draw(self._space, address(batch))
        return samples["code"], samples["detail"]

    def _outs(self, outs: NDArray[Any], places: Ints) -> NDArray[np.uint64]:
        shape = self.image.shape(self.res)
        if (
            outs.shape[1:] != shape
            or outs.dtype != self.image.dtype
            or not outs[:1].flags.c_contiguous
        ):
            raise ValueError(f"outs must hold {self.image.dtype} of {shape}, got {outs.shape}")
        if len(places) and not 0 <= places.min() <= places.max() < len(outs):
            raise ValueError("places must be indices of outs")
        return (address(outs) + places * outs.strides[0]).astype(np.uint64)
