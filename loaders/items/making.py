"""Makes items from stored samples and augmentation parameters; all items are made here."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.loaders.items import labels as label_math
from refit_shard.loaders.items.body import shown_boxes
from refit_shard.loaders.items.draws import Augmentation, Draws, explicit
from refit_shard.loaders.items.effects import BODIES, MOST_ENLARGED, look_labels
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.loaders.items.own import empty_labels, move_labels
from refit_shard.loaders.items.pixels import MEAN, STD, image_kind, make_images
from refit_shard.loaders.native import ImageKind, Jpegs
from refit_shard.shards_spec.errors import FrameError, UsageError
from refit_shard.shards_spec.fields import EXTRINSICS, Field
from refit_shard.shards_spec.geometry import beyond_window, box_side, output_to_source
from refit_shard.shards_spec.values import one_of

Batch = dict[str, Any]

_ROUNDING = 1e-3  # source pixels
_SHRUNK = 0.99  # stored pixels per source pixel; above it a crop has all of the frame's detail


class StoredSample(Protocol):
    """A stored sample: :class:`shards_spec.Sample`, or the members of a tar."""

    @property
    def jpeg(self) -> bytes | memoryview:
        """The stored crop as an encoded JPEG."""

    @property
    def own(self) -> Sequence[Field]:
        """The dataset's own labels that the item gets."""

    def __getitem__(self, name: str) -> Any:
        """A column of the field table, or an own label; KeyError if the sample does not have it."""

    def check(self) -> None:
        """Raise ShardError if the labels are damaged."""


# Columns from which the labels and images of a batch are computed.
GATHERED = (
    *("window", "k", "width", "height", "orig_shape", "center", "scale", "jpg_crc32c"),
    *("img_focal", "img_center", "keypoints", "pose", "betas", "pose_3d"),
    *("has_smpl", "has_pose_3d", "gender", "source_row"),
)


_DTYPES = {
    ImageKind.UINT8: torch.uint8,
    ImageKind.FLOAT32: torch.float32,
    ImageKind.BFLOAT16: torch.bfloat16,
}


def tensor_dtype(kind: ImageKind) -> torch.dtype:
    """The torch dtype of images of this kind."""
    return _DTYPES[kind]


def image_array(images: torch.Tensor) -> NDArray[Any]:
    """A numpy view of images, into which :class:`loaders.native.Drawer` draws.

    bfloat16 images are viewed as uint16, as numpy has no bfloat16.
    """
    if images.dtype == torch.bfloat16:
        return images.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = images.numpy()
    return array


def check_crc(data: bytes | memoryview, expected: int) -> None:
    """Check a JPEG against its CRC-32C from the index.

    Raises:
        FrameError: the CRC differs.
    """
    if crc32c(data) != expected:
        raise FrameError("corrupt", "crc32c differs from the index; run refit-shard verify")


def make_labels(
    options: RenderOptions, columns: Mapping[str, NDArray[Any]], draws: Draws
) -> dict[str, NDArray[Any]]:
    """All numeric keys of ReFit's item except ``img``, for a batch, and the values of the effects
    that ReFit does not have.
    """
    center = columns["center"]
    scale = columns["scale"]
    place = label_math.placing(options.compat)
    flip = draws.flip.astype(np.int64)
    orig_shape = columns["orig_shape"].astype(np.float64)
    made = {
        "keypoints": place(columns["keypoints"], center, scale, draws, options.res),
        "pose": label_math.pose(columns["pose"], draws),
        "betas": columns["betas"],
        "pose_3d": label_math.points_3d(columns["pose_3d"], draws),
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
    if draws.look is not None:
        made |= look_labels(draws.look) | {"body_crop": columns["body_crop"]}
    return {name: np.ascontiguousarray(values) for name, values in made.items()}


def render(
    sample: StoredSample,
    augmentation: Augmentation,
    options: RenderOptions | None = None,
    *,
    occluders: Occluders | None = None,
) -> Batch:
    """Make one item from one stored sample with the given augmentation parameters.

    The loader makes its batches by the same functions.

    Args:
        sample: A sample of a :class:`refit_shard.ShardSet`.
        augmentation: The parameters: rotation, scale, flip, colour factors, occluders, effects.
        options: Type and size of the image; None for the defaults.
        occluders: The cut-outs to which the ``index`` of each occlusion refers.

    Returns:
        The keys of a batch except ``dataset_name``, without the batch dimension: ``img`` float32
        (3, res, res), ``keypoints`` float32 (49, 3) and so on.

    Raises:
        ShardError: the labels are damaged.
        FrameError: the stored JPEG is damaged.
        UsageError: an occluder's index is out of range, the augmentation shows parts of the frame
            that the stored crop does not contain, or it crops to a half of the body for which the
            stored crop has too few pixels.
    """
    return make_item(sample, explicit([augmentation]), options or RenderOptions(), occluders)


def make_item(
    sample: StoredSample, draws: Draws, options: RenderOptions, occluders: Occluders | None
) -> Batch:
    """As :func:`render`, with the parameters as :class:`Draws` of one item."""
    wanted = max((one.index for one in draws.occlusion[0]), default=-1)
    if wanted >= (0 if occluders is None else len(occluders)):
        raise UsageError(
            f"render: no occluder with index {wanted}, the file has {len(occluders or ())}"
        )
    sample.check()
    names = (*GATHERED, *EXTRINSICS) if _has(sample, EXTRINSICS[0]) else GATHERED
    columns = {name: np.asarray(sample[name])[None] for name in names}
    columns |= shown_boxes(columns, draws)
    kind, data = image_kind(options), bytes(sample.jpeg)
    check_crc(data, int(columns["jpg_crc32c"][0]))
    images = torch.empty((1, *kind.shape(options.res)), dtype=tensor_dtype(kind))
    pixels, first = image_array(images), np.zeros(1, np.int64)
    failed = make_images(options, Jpegs.of([data]), columns, draws, occluders, pixels, first)
    if failed:
        raise failed[0]
    _check_held(columns, draws, options.res)
    made = make_labels(options, columns, draws)
    item: Batch = {"img": images[0]}
    item |= {name: torch.from_numpy(np.array(values[0])) for name, values in made.items()}
    return item | {"imgname": sample["imgname"]} | _own(sample, options, columns, draws)


def _own(
    sample: StoredSample, options: RenderOptions, columns: Mapping[str, NDArray[Any]], draws: Draws
) -> Batch:
    """The dataset's own labels in the item."""
    own = empty_labels(sample.own, 1)
    has = {field.name: np.array([_has(sample, field.name)]) for field in sample.own}
    for name in (name for name, there in has.items() if there[0]):
        value = sample[name]
        own[name] = np.array(value.encode() if isinstance(value, str) else value)[None]
    moved = move_labels(options, sample.own, {**columns, **own}, has, draws)
    return {
        name: torch.from_numpy(np.array(values[0])) if isinstance(values, np.ndarray) else values[0]
        for name, values in moved.items()
    }


def _check_held(columns: Mapping[str, NDArray[Any]], draws: Draws, res: int) -> None:
    """Raise if the image shows parts of the frame that the stored crop does not contain."""
    side = box_side(draws.sc * columns["scale"])
    (affine,) = output_to_source(columns["center"], side, draws.rot, draws.flip, res)
    _check_pixels(columns, draws, float(side[0]), res)
    found = beyond_window(affine, columns["window"][0], columns["orig_shape"][0], res)
    if found <= _ROUNDING:
        return
    sc, rot = float(draws.sc[0]), float(draws.rot[0])
    shown = [f"sc={sc:.4g}"] * (sc > 1 or rot == 0) + [f"rot={rot:.4g}"] * (rot != 0)
    wide = ["scale_clip"] * (sc > 1 or rot == 0) + ["rot_clip"] * (rot != 0)
    raise UsageError(
        f"{' with '.join(shown)} shows up to {found:.4g} px of the frame outside the stored "
        f"crop; lower it (of a policy: {' or '.join(wide)})"
    )


def _check_pixels(columns: Mapping[str, NDArray[Any]], draws: Draws, side: float, res: int) -> None:
    """Raise if a crop to a half of the body enlarges the stored pixels too much.

    Crops stored at the frame's own resolution are exempt: no other build would have more pixels.
    """
    k = float(columns["k"].min())
    if draws.look is None or not columns["body_crop"][0] or k > _SHRUNK:
        return
    times = res / (side * k)
    if times > MOST_ENLARGED * (1.0 + _ROUNDING):
        raise UsageError(
            f"body={BODIES[columns['body_crop'][0]]!r} with sc={draws.sc[0]:.4g} shows "
            f"{side * k:.4g} px of the stored crop, enlarged {times:.3g} times at res={res}; at "
            f"most {MOST_ENLARGED:g} times is allowed; lower res, or build with a larger --box-px"
        )


def _has(sample: StoredSample, name: str) -> bool:
    try:
        sample[name]
    except KeyError:
        return False
    return True


def finalize(
    batch: Batch,
    device: torch.device | str | None = None,
    image: Literal["normalized", "bfloat16"] = "normalized",
) -> Batch:
    """Move a batch of ``image="uint8"`` to a device and normalise its images there.

    Multiplies by the channel factors ``pn``, truncates to whole pixel values as the CPU does,
    subtracts ImageNet's mean, divides by its standard deviation, and makes the layout channels
    first. Copies to a CUDA device are asynchronous, from page-locked memory, so the next batch is
    copied while a training step is computed.

    Args:
        batch: A batch of a loader with ``image="uint8"``: ``img`` uint8 (B, res, res, 3) and ``pn``
            float32 (B, 3).
        device: Device for all tensors; None leaves each on its device.
        image: ``"normalized"`` for float32, ``"bfloat16"`` for the same rounded to the nearest
            bfloat16.

    Returns:
        The batch with ``img`` (B, 3, res, res) and without ``pn``.

    Raises:
        UsageError: the batch is not from a loader with ``image="uint8"``, or ``image`` is neither
            of its two values.
    """
    one_of("image", image, ("normalized", "bfloat16"))
    if "pn" not in batch or batch["img"].dtype != torch.uint8:
        raise UsageError('finalize: needs a batch of a loader with image="uint8"')
    moved = {
        name: _sent(value, device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    pn = moved.pop("pn")
    levels = moved["img"].permute(0, 3, 1, 2).to(torch.float32) * pn[:, :, None, None]
    scale, shift = _constants(levels.device)
    made = (levels.clamp_(max=255.0).floor_() * scale - shift).contiguous()
    moved["img"] = made if image == "normalized" else made.to(torch.bfloat16)
    return moved


@functools.cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and offset that normalise pixel values, float32 (3, 1, 1) on the device.

    Cached, because copying them is synchronous.
    """
    deviation = STD.astype(np.float64)
    scale, shift = (
        torch.from_numpy(values.astype(np.float32)[:, None, None]).to(device)
        for values in (1 / (255 * deviation), MEAN / deviation)
    )
    return scale, shift


def _sent(value: torch.Tensor, device: torch.device | str | None) -> torch.Tensor:
    """The tensor on the device; the copy may still be under way.

    A copy from pageable memory would wait for all earlier work of the device. PyTorch keeps
    page-locked memory until the copy from it is finished.
    """
    if device is None:
        return value
    if torch.device(device).type == "cuda" and not (value.is_cuda or value.is_pinned()):
        value = value.pin_memory()
    return value.to(device, non_blocking=True)
