"""A sample of frames against their labels: do they open whole, are they of the size and the way
round that the labels imply, do the boxes touch them?
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.build import Prepared
from converter.findings import Finding, graded
from converter.frames import decode_frame
from converter.plan import permutation
from converter.reading import read_frame
from converter.remedies import fix_of
from converter.resample import RES
from shards_spec.errors import FrameError
from shards_spec.geometry import box_meets_image, box_side
from shards_spec.storage import Folder, open_folder

Size = tuple[int, int]  # H, W

_PRINCIPAL_TOLERANCE = 0.1  # of a side: how far a principal point may be off the middle


@dataclass(frozen=True)
class _Fault:
    """A row that would end in quarantine, and why."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class _Seen:
    """What one sampled frame showed; ``turned``: stored on its side, as its data set's are."""

    turned: bool = False
    faults: tuple[_Fault, ...] = ()


def _check_size(prepared: Prepared, size: Size, row: int) -> Size:
    """The (H, W) that the row's labels see of a frame stored as ``size``.

    Raises:
        FrameError: ``turned_frame``: it is another, but right after a quarter turn;
            ``wrong_size``: otherwise.
    """
    dataset, labels = prepared.recipe.dataset, prepared.source.labels
    if dataset.cropped:
        if size != (RES, RES):
            raise FrameError("wrong_size", f"{size[1]}x{size[0]} px, a crop is {RES}x{RES}")
        return size
    principal = labels["img_center"][row] if "img_center" in labels else None
    seen = size
    if dataset.on_its_side(size[1], prepared.source.imgnames[row], principal):
        seen = size[::-1]
    if "orig_shape" in labels:
        wanted, what = labels["orig_shape"][row], "orig_shape says"
        fits, turned = (tuple(wanted) == one for one in (seen, seen[::-1]))
    elif principal is not None:
        wanted, what = 2.0 * principal[::-1], "img_center is the middle of"
        fits, turned = (_near(wanted, one) for one in (seen, seen[::-1]))
    else:
        return seen
    if not fits:
        raise FrameError(
            "turned_frame" if turned else "wrong_size",
            f"the file is {size[1]}x{size[0]}, {what} {wanted[1]:.0f}x{wanted[0]:.0f}",
        )
    return seen


def _near(implied: NDArray[np.float32], size: Size) -> bool:
    return bool((np.abs(implied - size) <= _PRINCIPAL_TOLERANCE * np.array(size)).all())


def _look(prepared: Prepared, root: Folder, rows: NDArray[np.int64]) -> _Seen:
    """Decode one frame and hold it against the labels of all of its rows."""
    source = prepared.source
    try:
        data = read_frame(root, source.paths[int(rows[0])])
        height, width = decode_frame(data).pixels.shape[:2]
    except FrameError as error:
        return _Seen(faults=tuple(_Fault(row, error.reason, str(error)) for row in rows.tolist()))
    turned = False
    faults = []
    for row in rows.tolist():
        try:
            seen = _check_size(prepared, (height, width), row)
            turned = turned or seen != (height, width)
            _check_box(prepared, seen, row)
        except FrameError as error:
            faults.append(_Fault(row, error.reason, str(error)))
    return _Seen(turned, tuple(faults))


def _check_box(prepared: Prepared, size: Size, row: int) -> None:
    labels = prepared.source.labels
    cx, cy = labels["center"][row].tolist()
    side = box_side(float(labels["scale"][row]))
    if not prepared.recipe.dataset.cropped and not box_meets_image(cx, cy, side, *size):
        raise FrameError(
            "box_outside_image",
            f"box of {side:.0f} px at ({cx:.0f}, {cy:.0f}) in a frame of {size[1]}x{size[0]}",
        )


def sample_frames(
    prepared: Prepared, gone: set[str], sample: int | None
) -> list[NDArray[np.int64]]:
    """The rows of each frame to look at: ``sample`` frames that are there, None for all of them."""
    paths, frames = prepared.source.paths, prepared.plan.frame_of_row
    order = np.sort(prepared.plan.order)
    order = order[np.argsort(frames[order], kind="stable")]
    _, starts = np.unique(frames[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    groups = [rows for rows in groups if paths[int(rows[0])] not in gone]
    if sample is not None and sample < len(groups):
        chosen = np.sort(permutation(len(groups), 0)[:sample]).tolist()
        groups = [groups[index] for index in chosen]
    return groups


def check_frames(
    prepared: Prepared, frames: Sequence[NDArray[np.int64]], on_frame: Callable[[], None]
) -> list[Finding]:
    """Whether frames open whole, have the size that their labels imply, and hold their boxes."""
    dataset, source = prepared.recipe.dataset, prepared.source
    root = open_folder(prepared.request.root)
    seen = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for one in pool.map(lambda rows: _look(prepared, root, rows), frames):
            seen.append(one)
            on_frame()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    rows = sum(len(group) for group in frames)
    scope = f"{len(frames)} of {prepared.plan.frames} frames"
    reasons: dict[str, list[_Fault]] = {}
    for fault in (fault for one in seen for fault in one.faults):
        reasons.setdefault(fault.reason, []).append(fault)
    findings = []
    for reason, faults in reasons.items():
        first = faults[0]
        findings.append(
            Finding(
                dataset.name,
                "frames",
                graded(len(faults), rows),
                f"{len(faults)} of {rows} rows looked at ({scope}): {reason}; first, row "
                f"{first.row} ({source.paths[first.row]}): {first.detail}",
                fix_of(dataset, reason),
            )
        )
    if frames and not findings:
        detail = f"{scope} looked at: they open, have their size and hold their boxes"
        findings.append(Finding(dataset.name, "frames", "ok", detail))
    turned = sum(one.turned for one in seen)
    if turned:
        detail = (
            f"{turned} of {len(frames)} frames lie on their side, as they should; build turns them"
        )
        findings.append(Finding(dataset.name, "turned", "ok", detail))
    return findings
