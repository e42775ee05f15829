"""Checks a sample of frames against their labels: that they decode completely, that their size and
orientation are those that the labels imply, and that the boxes overlap them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.archives.frames import Frames
from refit_shard.converter.build.driver import Prepared
from refit_shard.converter.build.plan import frame_order
from refit_shard.converter.doctor.findings import Finding, Limits, Status
from refit_shard.converter.doctor.remedies import PASSING, fix_of
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.frames.resample import RES
from refit_shard.shards_spec.errors import FrameError, PassingError
from refit_shard.shards_spec.geometry import box_meets_image, box_side
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.storage.folder import open_folder

Size = tuple[int, int]  # H, W

_PRINCIPAL_TOLERANCE = 0.1  # how far a principal point may be off the middle, as a share of a side
# The largest box side, in longer sides of the frame. If scale is in pixels instead of pixels / 200,
# a box is up to 200 times as large as the frame.
_MAX_BOX = 20.0


@dataclass(frozen=True)
class Fault:
    """Why a row would end in quarantine, or be stored with wrong labels."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class _Seen:
    """The faults of one sampled frame. ``turned``: True if the frame is stored on its side, as its
    dataset's rule expects.
    """

    turned: bool = False
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Look:
    """The faults of a sample of ``frames`` frames with ``rows`` rows, by reason. ``turned``: how
    many of the frames are stored on their side, as their dataset's rule expects.
    """

    frames: int
    rows: int
    turned: int
    faults: dict[str, list[Fault]]

    def grade(self, reason: str, limits: Limits) -> Status:
        """``fail`` if too many rows have this fault, else ``warn``. The rows are converted to a
        number of frames, because the rows of one frame are not independent.
        """
        bad = len(self.faults.get(reason, ())) * self.frames / max(1, self.rows)
        return limits.grade(reason, bad, self.frames)


def _seen_size(prepared: Prepared, size: Size, row: int) -> Size:
    """(H, W) of a frame stored as ``size``, in the orientation of the row's labels."""
    dataset, labels = prepared.recipe.dataset, prepared.source.labels
    principal = labels["img_center"][row] if "img_center" in labels else None
    on_its_side = dataset.on_its_side(size[1], prepared.source.imgnames[row], principal)
    return size[::-1] if on_its_side else size


def _check_size(prepared: Prepared, size: Size, seen: Size, row: int) -> None:
    """Check that a frame has the size that its labels imply. ``size``: as stored; ``seen``: in the
    orientation of the labels.

    Raises:
        FrameError: the size differs: ``turned_frame`` or ``turned_size`` if it is right after a
            quarter turn, else ``wrong_size``, ``other_size`` or ``off_centre_camera``.
    """
    labels = prepared.source.labels
    if prepared.recipe.dataset.cropped:
        if size != (RES, RES):
            raise FrameError("wrong_size", f"{size[1]}x{size[0]} px, a crop is {RES}x{RES}")
    elif "orig_shape" in labels:
        stated = labels["orig_shape"][row]
        if tuple(stated) != seen:
            reason = "turned_frame" if tuple(stated) == seen[::-1] else "wrong_size"
            raise _size_error(reason, size, "orig_shape says", stated)
    elif "img_center" in labels:
        _check_principal(size, seen, labels["img_center"][row])


def _check_principal(size: Size, seen: Size, principal: NDArray[np.float32]) -> None:
    """Check that the principal point is near the middle of the frame.

    A real lens may be off the middle. If the point is off by the same factor in x and y, or near
    the frame's border, the camera belongs to a frame of another size.

    Raises:
        FrameError: ``turned_size``, ``other_size`` or ``off_centre_camera``.
    """
    implied = 2.0 * principal[::-1]
    ratio = implied / np.array(seen)
    if (np.abs(ratio - 1.0) <= _PRINCIPAL_TOLERANCE).all():
        return
    reason = "off_centre_camera"
    if (np.abs(implied / np.array(seen[::-1]) - 1.0) <= _PRINCIPAL_TOLERANCE).all():
        reason = "turned_size"
    elif not (np.abs(ratio - 1.0) < 0.5).all() or np.ptp(ratio) <= _PRINCIPAL_TOLERANCE:
        reason = "other_size"
    raise _size_error(reason, size, "img_center is the middle of", implied)


def _size_error(reason: str, size: Size, what: str, wanted: NDArray[Any]) -> FrameError:
    return FrameError(
        reason, f"the file is {size[1]}x{size[0]}, {what} {wanted[1]:.0f}x{wanted[0]:.0f}"
    )


def _look(prepared: Prepared, root: Frames, rows: NDArray[np.int64]) -> _Seen:
    """Decode one frame and check it against the labels of all its rows."""
    source = prepared.source
    try:
        data = root.read(source.paths[int(rows[0])])
        height, width = decode_frame(data).pixels.shape[:2]
    except FrameError as error:
        return _Seen(faults=tuple(Fault(row, error.reason, str(error)) for row in rows.tolist()))
    except PassingError as error:
        return _Seen(faults=tuple(Fault(row, PASSING, str(error)) for row in rows.tolist()))
    turned = False
    faults = []
    for row in rows.tolist():
        seen = _seen_size(prepared, (height, width), row)
        turned = turned or seen != (height, width)
        checks = (partial(_check_size, prepared, (height, width)), partial(_check_box, prepared))
        for check in checks:
            try:
                check(seen, row)
            except FrameError as error:
                faults.append(Fault(row, error.reason, str(error)))
                # In a frame of another size, a check of the box would say nothing more.
                if error.reason != "off_centre_camera":
                    break
    return _Seen(turned, tuple(faults))


def _check_box(prepared: Prepared, size: Size, row: int) -> None:
    """Check that the box can be that of a person in a frame of this size.

    Raises:
        FrameError: ``box_outside_image``, ``huge_box``, ``center_outside_image``.
    """
    labels = prepared.source.labels
    cx, cy = labels["center"][row].tolist()
    side = box_side(float(labels["scale"][row]))
    if prepared.recipe.dataset.cropped:
        return
    reason = None
    if not box_meets_image(cx, cy, side, *size):
        reason = "box_outside_image"
    elif side > _MAX_BOX * max(size):
        reason = "huge_box"
    elif not box_meets_image(cx, cy, 0.0, *size):
        reason = "center_outside_image"
    if reason is not None:
        detail = f"box of {side:.0f} px at ({cx:.0f}, {cy:.0f}) in a frame of {size[1]}x{size[0]}"
        raise FrameError(reason, detail)


def sample_frames(
    prepared: Prepared, gone: set[str], sample: int | None
) -> list[NDArray[np.int64]]:
    """The rows of each frame to decode: of ``sample`` frames that are not in ``gone``, or of all of
    them if ``sample`` is None.
    """
    paths, frames = prepared.source.paths, prepared.plan.frame_of_row
    order = np.sort(prepared.plan.order)
    order = order[np.argsort(frames[order], kind="stable")]
    _, starts = np.unique(frames[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    groups = [rows for rows in groups if paths[int(rows[0])] not in gone]
    if sample is not None and sample < len(groups):
        chosen = np.sort(frame_order(len(groups), 0)[:sample]).tolist()
        groups = [groups[index] for index in chosen]
    return groups


def look_at(
    prepared: Prepared, frames: Sequence[NDArray[np.int64]], on_frame: Callable[[], None]
) -> Look:
    """Decode frames and check them against the labels of their rows."""
    members = prepared.packed.members(prepared.source.paths[int(rows[0])] for rows in frames)
    root = Frames(open_folder(prepared.request.root), members)
    seen = []
    pool = ThreadPoolExecutor(available_cores())
    try:
        for one in pool.map(lambda rows: _look(prepared, root, rows), frames):
            seen.append(one)
            on_frame()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    faults: dict[str, list[Fault]] = {}
    for fault in (fault for one in seen for fault in one.faults):
        faults.setdefault(fault.reason, []).append(fault)
    return Look(
        frames=len(frames),
        rows=sum(len(rows) for rows in frames),
        turned=sum(one.turned for one in seen),
        faults=faults,
    )


def check_look(prepared: Prepared, look: Look, limits: Limits) -> list[Finding]:
    """The findings for a sample of frames: faults by reason, or that all frames are right."""
    dataset, source = prepared.recipe.dataset, prepared.source
    scope = f"{look.frames} of {prepared.plan.frames} frames"
    findings = [
        Finding(
            dataset.name,
            "frames",
            look.grade(reason, limits),
            f"{len(faults)} of {look.rows} rows checked ({scope}): {reason}; first, row "
            f"{faults[0].row} ({source.paths[faults[0].row]}): {faults[0].detail}",
            fix_of(dataset, reason),
        )
        for reason, faults in look.faults.items()
    ]
    if look.frames and not findings:
        detail = f"{scope} checked: they decode, have the labels' size, and contain their boxes"
        findings.append(Finding(dataset.name, "frames", "ok", detail))
    if look.turned:
        detail = (
            f"{look.turned} of {look.frames} frames are stored on their side, as expected; "
            "build turns them"
        )
        findings.append(Finding(dataset.name, "turned", "ok", detail))
    return findings
