"""From stored samples and parameters to items: the one place where an item is made."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from crc32c import crc32c
from numpy.typing import NDArray

from loaders import labels as label_math
from loaders.footprint import footprints
from loaders.occluders import Occluders, paste_all
from loaders.options import RenderOptions
from loaders.pixels import MEAN, STD, Scratch, decode_and_warp, normalize
from loaders.policy import Augmentation, Draws, explicit
from shards_spec import jpeg
from shards_spec.errors import FrameError, RefitShardError, UsageError
from shards_spec.fields import EXTRINSICS
from shards_spec.geometry import beyond_window, box_side, output_to_source, source_to_stored

Batch = dict[str, Any]

_FARTHEST = 1e9  # px
_LEAST_AREA = 1e-12  # stored pixels an output pixel
_ROUNDING = 1e-3  # source pixels


class StoredSample(Protocol):
    """What an item is made of: :class:`shards_spec.Sample`, or the members of a tar."""

    @property
    def jpeg(self) -> bytes | memoryview:
        """The stored crop."""

    def __getitem__(self, name: str) -> Any:
        """A column of the field table."""

    def check(self) -> None:
        """Raise ShardError if the labels are not those that were built."""


# Columns that go into the arithmetic of a batch.
GATHERED = (
    *("window", "k", "width", "height", "orig_shape", "center", "scale", "jpg_crc32c"),
    *("img_focal", "img_center", "keypoints", "pose", "betas", "pose_3d"),
    *("has_smpl", "has_pose_3d", "gender", "source_row"),
)


def affines(columns: Mapping[str, NDArray[Any]], draws: Draws, res: int) -> NDArray[np.float64]:
    """Maps (n, 2, 3) from output pixels to stored pixels."""
    to_source = output_to_source(
        columns["center"], box_side(draws.sc * columns["scale"]), draws.rot, draws.flip, res
    )
    return source_to_stored(to_source, columns["window"], columns["k"])


def usable(
    maps: NDArray[np.float64], sides: NDArray[np.int32], scale: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of the maps (n, 2, 3) lead between pixels and back, into an image of sides (n, 2).

    No build writes others, but shards come from anywhere.
    """
    area = np.abs(np.linalg.det(maps[:, :, :2]))
    near = np.abs(maps).reshape(len(maps), -1).max(1) < _FARTHEST
    image = ((sides > 0) & (sides <= jpeg.MAX_SIDE)).all(1)
    return np.asarray(image & near & (area > _LEAST_AREA) & (scale > 0))  # NaN is none of these


def image_shape(options: RenderOptions) -> tuple[int, int, int]:
    """The shape of an item's image."""
    res = options.res
    return (3, res, res) if options.image == "normalized" else (res, res, 3)


def image_dtype(options: RenderOptions) -> np.dtype[Any]:
    """The type of an item's image."""
    return np.dtype(np.float32 if options.image == "normalized" else np.uint8)


def check_crc(data: bytes | memoryview, expected: int) -> None:
    """Refuse a JPEG that is not the one that was built.

    Raises:
        FrameError: its CRC differs.
    """
    if crc32c(data) != expected:
        raise FrameError("corrupt", "crc32c is not that of the index; run refit-shard verify")


def make_images(
    options: RenderOptions,
    jpegs: Sequence[bytes],
    columns: Mapping[str, NDArray[Any]],
    draws: Draws,
    occluders: Occluders | None,
    outs: Sequence[NDArray[Any]],
    scratch: Scratch,
    on_bad: Callable[[int, RefitShardError], None],
) -> None:
    """Make the image of each stored JPEG: (3, res, res) float32 or (res, res, 3) uint8 in ``outs``.

    ``on_bad`` hears of a sample that does not decode; it raises, or the image is replaced later.
    """
    sides = np.stack([columns["height"], columns["width"]], 1)
    with np.errstate(over="ignore", invalid="ignore"):
        maps = affines(columns, draws, options.res)
        good = usable(maps, sides, columns["scale"])
    if not good.all():
        maps[~good], sides[~good] = np.eye(2, 3), 1
    heights, widths = sides.T.tolist()
    regions = footprints(maps, heights, widths, options.res)
    single = np.empty((options.res, options.res, 3), np.uint8)
    crcs = columns["jpg_crc32c"].tolist()
    for index, (data, height, width, crc) in enumerate(
        zip(jpegs, heights, widths, crcs, strict=True)
    ):
        image = outs[index] if options.image == "uint8" else single
        try:
            check_crc(data, crc)
            if not good[index]:
                raise FrameError("bad_box", "its box or its size makes no sense; build it again")
            decode_and_warp(data, (height, width), regions[index], maps[index], image, scratch)
        except FrameError as error:
            on_bad(index, error)
            continue
        if occluders is not None and draws.occlusion[index]:
            paste_all(image, occluders, draws.occlusion[index])
        if options.image == "normalized":
            normalize(image, draws.pn[index], outs[index])


def make_labels(
    options: RenderOptions, columns: Mapping[str, NDArray[Any]], draws: Draws
) -> dict[str, NDArray[Any]]:
    """Every numeric key of ReFit's item but the image, for a batch."""
    center = columns["center"]
    scale = columns["scale"]
    place = label_math.keypoints_whole if options.compat == "refit" else label_math.keypoints
    flip = draws.flip.astype(np.int64)
    orig_shape = columns["orig_shape"].astype(np.float64)
    made = {
        "keypoints": place(columns["keypoints"], center, scale, draws, options.res),
        "pose": label_math.pose(columns["pose"], draws),
        "betas": columns["betas"],
        "pose_3d": label_math.pose_3d(columns["pose_3d"], draws),
        "scale": (draws.sc * scale).astype(np.float32),
        "center": label_math.center(center, orig_shape, draws).astype(np.float32),
        "orig_shape": orig_shape.astype(np.float32),
        "img_focal": columns["img_focal"],
        "img_center": columns["img_center"],
        "flip": flip,
        "occ": draws.occ.astype(np.int64),
        "is_flipped": flip.copy(),
        "rot": draws.rot,
        "sc": draws.sc,
        "rot_angle": draws.rot.astype(np.float32),
        "sample_index": columns["source_row"],
        "gender": columns["gender"].astype(np.int32),
        "has_smpl": columns["has_smpl"].astype(np.float64),
        "has_pose_3d": columns["has_pose_3d"].astype(np.int64),
    }
    made |= {name: columns[name] for name in EXTRINSICS if name in columns}
    if options.image == "uint8":
        made["pn"] = draws.pn
    return {name: np.ascontiguousarray(values) for name, values in made.items()}


def _raise(_index: int, error: RefitShardError) -> None:
    raise error


def render(
    sample: StoredSample,
    augmentation: Augmentation,
    options: RenderOptions | None = None,
    *,
    occluders: Occluders | None = None,
) -> Batch:
    """One item from one stored sample, with the given parameters.

    Returns ReFit's item without ``dataset_name``; tensors have no batch dimension. The loader
    makes its batches by the same functions.

    Raises:
        ShardError: the labels are damaged.
        FrameError: the stored JPEG is damaged.
        UsageError: the augmentation names an occluder, and there is none of that number; or it
            shows parts of the frame that the stored crop does not hold.
    """
    options = options or RenderOptions()
    wanted = max((one.index for one in augmentation.occluders), default=-1)
    if wanted >= (0 if occluders is None else len(occluders)):
        raise UsageError(f"render: occluder {wanted} of {len(occluders or ())}")
    sample.check()
    draws = explicit([augmentation])
    names = (*GATHERED, *EXTRINSICS) if _has_extrinsics(sample) else GATHERED
    columns = {name: np.asarray(sample[name])[None] for name in names}
    image = np.empty(image_shape(options), image_dtype(options))
    data = [bytes(sample.jpeg)]
    make_images(options, data, columns, draws, occluders, [image], Scratch(), _raise)
    _check_held(columns, draws, options.res)
    made = make_labels(options, columns, draws)
    item: Batch = {"img": torch.from_numpy(image)}
    item |= {name: torch.from_numpy(np.array(values[0])) for name, values in made.items()}
    return item | {"imgname": sample["imgname"]}


def _check_held(columns: Mapping[str, NDArray[Any]], draws: Draws, res: int) -> None:
    """Refuse to show black where the frame has pixels that the stored crop does not hold."""
    side = box_side(draws.sc * columns["scale"])
    (affine,) = output_to_source(columns["center"], side, draws.rot, draws.flip, res)
    found = beyond_window(affine, columns["window"][0], columns["orig_shape"][0], res)
    if found <= _ROUNDING:
        return
    sc, rot = float(draws.sc[0]), float(draws.rot[0])
    shown = [f"sc={sc:.4g}"] * (sc > 1 or rot == 0) + [f"rot={rot:.4g}"] * (rot != 0)
    wide = ["scale_clip"] * (sc > 1 or rot == 0) + ["rot_clip"] * (rot != 0)
    raise UsageError(
        f"{' with '.join(shown)} shows up to {found:.4g} px of the frame beyond what the stored "
        f"crop holds; lower it (of a policy: {' or '.join(wide)})"
    )


def _has_extrinsics(sample: StoredSample) -> bool:
    try:
        sample[EXTRINSICS[0]]
    except KeyError:
        return False
    return True


def finalize(batch: Batch, device: torch.device | str | None = None) -> Batch:
    """Turn a ``image="uint8"`` batch into ReFit's, on the device: factors, normalisation, layout.

    Tensors are moved to ``device``; ``pn`` is used up. Truncation to whole levels is as on the
    CPU, so both give the same levels.

    Raises:
        UsageError: the batch is not one of ``image="uint8"``.
    """
    if "pn" not in batch or batch["img"].dtype != torch.uint8:
        raise UsageError('finalize: needs a batch of a loader with image="uint8"')
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    pn = moved.pop("pn")
    image = moved["img"].permute(0, 3, 1, 2).to(torch.float32) * pn[:, :, None, None]
    mean = torch.from_numpy(MEAN).to(image.device)[:, None, None]
    std = torch.from_numpy(STD).to(image.device)[:, None, None]
    moved["img"] = ((image.clamp_(max=255.0).floor_() / 255.0 - mean) / std).contiguous()
    return moved
