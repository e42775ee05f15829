"""Pictures of a report: crops before and after augmentation, and frames of quarantined rows."""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.source import frame_path
from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.archives.frames import Frames
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.doctor.remedies import FIXES, fix_of
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.crops import augmentations, augmented_crop, in_words
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.picks import pick, share_out
from refit_shard.report.facts import Facts, SetFacts
from refit_shard.shards_spec.errors import FrameError, RefitShardError, UsageError
from refit_shard.shards_spec.reader import Sample
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.verify import read_quarantine
from refit_shard.sheet import draw_crop

Image = NDArray[np.uint8]

SEEN = 5  # augmented versions of each crop
THUMBNAILS = 4  # frames shown for each reason of a dataset's quarantine
_CROP_PX, _THUMBNAIL_PX, _QUALITY = 192, 150, 82


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the page.

    Attributes:
        url: the JPEG as a data: URL; empty if the picture could not be made.
        caption: what the picture shows, or why it could not be made.
    """

    url: str = ""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A sample: its stored crop, and augmented versions (``seen``) or the reason why there are none
    (``note``).
    """

    dataset: str
    key: str
    imgname: str
    stored: Picture
    seen: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A quarantined row and its frame."""

    source_row: int
    imgname: str
    detail: str
    picture: Picture


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Rows that were quarantined for one reason, what to do about it, and some examples."""

    reason: str
    rows: int
    fix: str
    examples: tuple[BadRow, ...]


def as_url(image: Image, longest: int) -> str:
    """An (H, W, 3) RGB image as a data: URL, scaled down to at most ``longest`` px a side."""
    height, width = image.shape[:2]
    factor = min(1.0, longest / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
    flags = (cv2.IMWRITE_JPEG_QUALITY, _QUALITY)
    data = cv2.imencode(".jpg", small[:, :, ::-1], flags)[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _picture(make: Callable[[], Image], caption: str, longest: int = _CROP_PX) -> Picture:
    """A picture; if its data are damaged, the error as its caption, so that the report is still
    made.
    """
    try:
        return Picture(url=as_url(make(), longest), caption=caption)
    except RefitShardError as error:
        return Picture(caption=str(error))


def sheet(
    facts: Facts,
    policy: AugmentationPolicy,
    *,
    count: int,
    seed: int,
    res: int,
    occluders: Occluders | None,
) -> list[SheetRow]:
    """Samples of all datasets before and after augmentation.

    ``count``: samples in all, spread over the datasets. ``seed``: of the choice and the
    augmentation.
    """
    rows: list[SheetRow] = []
    given = share_out([one.statistics.rows for one in facts.sets], count)
    for one, few in zip(facts.sets, given, strict=True):
        for sample in pick(one.chosen, few, seed):
            rows.append(_sheet_row(one, sample, policy, seed, len(rows) * SEEN, res, occluders))
    return rows


def _sheet_row(
    one: SetFacts,
    sample: Sample,
    policy: AugmentationPolicy,
    seed: int,
    first: int,
    res: int,
    occluders: Occluders | None,
) -> SheetRow:
    note = ""
    seen: list[Picture] = []
    try:
        policy.check_set(one.data_set.manifest, res, one.name)
    except UsageError as error:
        note = str(error)
    else:
        seen = [
            _picture(partial(augmented_crop, sample, one, res, occluders), in_words(one))
            for one in augmentations(policy, seed, first, SEEN, occluders, res)
        ]
    return SheetRow(
        dataset=one.name,
        key=sample["key"],
        imgname=sample["imgname"],
        stored=_picture(partial(draw_crop, sample), "as stored"),
        seen=tuple(seen),
        note=note,
    )


def quarantine(one: SetFacts, dataset: Dataset, root: str, why_not: str = "") -> list[Reason]:
    """The quarantined rows of a dataset by reason, the most frequent first, with some frames.

    Args:
        one: the dataset.
        dataset: its registered or declared properties, which map names of frames to files.
        root: folder or URL of its frames; empty if unknown.
        why_not: why no frame can be shown; empty if ``root`` is known.

    Raises:
        ShardError: the quarantine is missing or damaged.
    """
    manifest = one.data_set.manifest
    table = read_quarantine(one.data_set.folder, manifest)
    counts = sorted(manifest.quarantined.items(), key=lambda item: (-item[1], item[0]))
    chosen = {reason: _first_frames(table, reason) for reason, _ in counts}
    names = [row["imgname"] for rows in chosen.values() for row in rows]
    pictures = _frames(names, dataset, root, one.data_set.folder, why_not)
    return [
        Reason(
            reason=reason,
            rows=count,
            fix=fix_of(dataset, reason) if reason in FIXES else "",
            examples=tuple(
                BadRow(
                    source_row=row["source_row"],
                    imgname=row["imgname"],
                    detail=row["detail"],
                    picture=pictures[row["imgname"]],
                )
                for row in chosen[reason]
            ),
        )
        for reason, count in counts
    ]


def _first_frames(table: pa.RecordBatch, reason: str) -> list[dict[str, Any]]:
    """One row for each of the first frames that were quarantined for a reason."""
    rows = np.flatnonzero(table.column("reason").to_numpy(zero_copy_only=False) == reason)
    names = table.column("imgname").to_numpy(zero_copy_only=False)[rows]
    first = np.sort(np.unique(names.astype(str), return_index=True)[1])[:THUMBNAILS]
    found: list[dict[str, Any]] = table.take(pa.array(rows[first])).to_pylist()
    return found


def _frames(
    names: Iterable[str], dataset: Dataset, root: str, shards: Folder, why_not: str
) -> Mapping[str, Picture]:
    """A picture of each frame by its name; if it cannot be shown, the caption says why."""
    distinct = list(dict.fromkeys(names))
    if why_not or not distinct:
        return dict.fromkeys(distinct, Picture(caption=why_not))
    paths = {name: frame_path(name, root, dataset.remaps) for name in distinct}
    within = [path for path in paths.values() if path is not None]
    try:
        folder = open_folder(root)
        packed = find_packed(folder, within, shards.child(LISTS_FOLDER))
        frames = Frames(folder, packed.members(within))
    except RefitShardError as error:
        return dict.fromkeys(distinct, Picture(caption=str(error)))

    def frame(path: str | None) -> Image:
        if path is None:
            raise FrameError("path_outside_root", "its name leads out of the root: not opened")
        return decode_frame(frames.read(path)).pixels

    return {
        name: _picture(partial(frame, path), "the frame", _THUMBNAIL_PX)
        for name, path in paths.items()
    }
