"""Finds labels that cannot be right from the npz alone: incomplete sets of keys, and values in
another unit or of another row. No frame is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.source import Annotations
from refit_shard.converter.doctor.findings import Finding, Limits, Status
from refit_shard.converter.doctor.remedies import FIXES
from refit_shard.shards_spec.fields import EXTRINSICS
from refit_shard.shards_spec.geometry import box_side

# Keys of other formats: the SPIN keys that hold the same label, and how to compute those.
FOREIGN: dict[str, tuple[tuple[str, ...], str]] = {
    "pose_cam": (("pose",), "pose = pose_cam[:, :72]"),
    "smpl_pose": (("pose",), "pose = smpl_pose.reshape(-1, 72)"),
    "poses": (("pose",), "pose = poses.reshape(-1, 72)"),
    "thetas": (("pose",), "pose = thetas.reshape(-1, 72)"),
    "global_orient": (("pose",), "pose = global_orient and body_pose side by side, 3 + 69"),
    "body_pose": (("pose",), "pose = global_orient and body_pose side by side, 3 + 69"),
    "betas": (("shape",), "shape = betas[:, :10]"),
    "smpl_shape": (("shape",), "shape = smpl_shape[:, :10]"),
    "smpl_betas": (("shape",), "shape = smpl_betas[:, :10]"),
    "cam_int": (
        ("img_focal", "img_center"),
        "img_focal = cam_int[:, 0, 0], img_center = cam_int[:, :2, 2]",
    ),
    "focal_length": (("img_focal",), "img_focal = focal_length in pixels"),
    "gtkps": (("part", "openpose"), "part = its SPIN joints (N, 24, 3)"),
    "keypoints": (("part", "openpose"), "part = its SPIN joints (N, 24, 3)"),
    "keypoints_2d": (("part", "openpose"), "part = its SPIN joints (N, 24, 3)"),
    "joints_2d": (("part", "openpose"), "part = its SPIN joints (N, 24, 3)"),
    "joints_3d": (("S",), "S = its SPIN joints (N, 24, 4) from the pelvis"),
    "genders": (("gender",), "gender = genders"),
}
_CHUNK = 4096  # rows; small enough that intermediate arrays stay in the CPU's cache
_NEAR = 1.0  # a keypoint is near if it is within this many box sides of the box's middle in x and y
_LEAST_NEAR = 0.25  # the share of a row's keypoints that must be near
_FULL_TURNS = 4 * np.pi  # rad; no fit turns a joint further
_REACH = 10.0  # m; no joint is further from the pelvis


# ------------------------------------------------------------------------------------ rows


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """The rows that cannot be used for one reason, which their labels show without the frame, and
    the first of them.
    """

    reason: str
    rows: int
    first_row: int
    imgname: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}; first, row {self.first_row} ({self.imgname}): {self.detail}"


def unusable_rows(source: Annotations) -> list[Unusable]:
    """The rows that end in quarantine before any frame is read, one entry for each reason."""
    reasons: dict[str, list[int]] = {}
    for row, fault in sorted(source.faults.items()):
        reasons.setdefault(fault.reason, []).append(row)
    return [
        Unusable(
            reason=reason,
            rows=len(rows),
            first_row=rows[0],
            imgname=source.faults[rows[0]].imgname,
            detail=source.faults[rows[0]].detail,
        )
        for reason, rows in reasons.items()
    ]


def check_rows(dataset: Dataset, source: Annotations, limits: Limits) -> list[Finding]:
    """Findings for rows that cannot be used, as the labels alone show: NaN, boxes, duplicates,
    names.
    """
    return [
        Finding(
            dataset.name,
            "rows",
            limits.grade(one.reason, one.rows, source.rows),
            f"{one.rows} of {source.rows} rows: {one}",
            FIXES[one.reason],
        )
        for one in unusable_rows(source)
    ]


# ------------------------------------------------------------------------------------ keys


def check_keys(dataset: Dataset, source: Annotations) -> list[Finding]:
    """Findings for keys that are useless without another, missing key, and for keys of other
    formats.
    """
    findings = [_smpl_keys(dataset, source), _camera_keys(dataset, source)]
    found = set(source.found)
    some = [key for key in EXTRINSICS if key in found]
    if some and len(some) < len(EXTRINSICS):
        detail = f"{_and(some)} without {_and([k for k in EXTRINSICS if k not in found])}: not used"
        fix = "cam_R, cam_t and trans are used together: add what is missing, or leave all out"
        findings.append(Finding(dataset.name, "keys", "warn", detail, fix))
    if not found & {"part", "openpose"}:
        detail = "neither part nor openpose exists: every row is built without 2D keypoints"
        findings.append(Finding(dataset.name, "keys", "warn", detail, FIXES["keypoints_off_box"]))
    wanted = {key for stands_for, _ in FOREIGN.values() for key in stands_for}
    foreign = _foreign(source, wanted - ({"pose", "shape"} if findings[0] is not None else set()))
    if foreign:
        detail = f"{_and(list(foreign))}: not read under these names"
        fix = "save under SPIN's: " + "; ".join(dict.fromkeys(foreign.values()))
        findings.append(Finding(dataset.name, "keys", "warn", detail, fix))
    return [one for one in findings if one is not None]


def _foreign(source: Annotations, wanted: set[str]) -> dict[str, str]:
    """Unused keys of other formats that hold missing ``wanted`` keys, and how to compute those."""
    return {
        key: how
        for key, (stands_for, how) in FOREIGN.items()
        if key in source.unused
        and not set(source.found) & set(stands_for)
        and wanted & set(stands_for)
    }


def _smpl_keys(dataset: Dataset, source: Annotations) -> Finding | None:
    """The finding for missing SMPL parameters, or None. A pose without a shape counts as
    missing.
    """
    there = [key for key in ("pose", "shape") if key in source.found]
    if len(there) == 2:
        if dataset.expects_smpl and not source.labels["has_smpl"].any():
            detail = "has_smpl is 0 in every row: all are built without SMPL parameters"
            fix = "fine if only boxes and keypoints are wanted; else get the npz with the fits"
            return Finding(dataset.name, "smpl", "warn", detail, fix)
        return None
    if not there and not dataset.expects_smpl:
        return None
    absent = [key for key in ("pose", "shape") if key not in there]
    foreign = _foreign(source, {"pose", "shape"})
    others = f"; there is {_and(list(foreign))}" if foreign else ""
    detail = (
        f"{source.npz}: no {_and(absent)}{f' beside {there[0]}' if there else ''}{others}: every "
        "row would be built without SMPL parameters"
    )
    ways = "; ".join(dict.fromkeys(foreign.values()))
    fix = "SMPL is pose (N, 72) in radians and shape (N, 10): " + (
        f"save them so ({ways})" if ways else "get the npz that holds both"
    )
    status: Status = "fail" if dataset.expects_smpl else "warn"
    return Finding(dataset.name, "smpl", status, detail, fix)


def _camera_keys(dataset: Dataset, source: Annotations) -> Finding | None:
    """The finding for a camera with only one of focal length and principal point, or None. The
    build would ignore it and use its default camera.
    """
    there = [key for key in ("img_focal", "img_center") if key in source.found]
    if len(there) != 1:
        return None
    absent = "img_center" if there == ["img_focal"] else "img_focal"
    detail = f"{source.npz}: {there[0]} without {absent}: the camera would not be used"
    fix = "add img_center (N, 2), x and y in pixels" if absent == "img_center" else ""
    fix = fix or "add img_focal (N,), in pixels"
    return Finding(dataset.name, "camera", "fail", detail, f"{fix}, or leave {there[0]} out")


def _and(keys: list[str]) -> str:
    return " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)


# ---------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class _Rows:
    """Labels of n rows: ``center`` (n, 2) px, ``side`` of the box (n,) px, ``keypoints`` (n, 49,
    3), ``pose`` (n, 72) rad, ``has_smpl`` (n,), ``pose_3d`` (n, 24, 4) m.
    """

    center: NDArray[np.float64]
    side: NDArray[np.float64]
    keypoints: NDArray[np.float32]
    pose: NDArray[np.float32]
    has_smpl: NDArray[np.bool_]
    pose_3d: NDArray[np.float32]


Wrong = Callable[[_Rows], Any]  # (n,) bool


def _in_first_pixel(rows: _Rows) -> NDArray[np.bool_]:
    """True where the box's middle is in -1 … 1: a share of the frame's sides instead of pixels."""
    return np.asarray((np.abs(rows.center) <= 1.0).all(axis=1))


def _off_box(rows: _Rows) -> NDArray[np.bool_]:
    """True where fewer than a quarter of the keypoints are near the box, or all are in -1 … 1."""
    x, y, confidence = (np.ascontiguousarray(rows.keypoints[:, :, axis]) for axis in range(3))
    seen = (confidence > 0) & ((x != 0) | (y != 0))  # (0, 0) is AGORA's "outside the frame"
    count = np.count_nonzero(seen, axis=1)
    cx, cy = rows.center.astype(np.float32).T[:, :, None]
    away = np.maximum(np.abs(x - cx), np.abs(y - cy))
    near = np.count_nonzero(seen & (away <= _NEAR * rows.side[:, None].astype(np.float32)), axis=1)
    in_pixels = np.count_nonzero(seen & (np.maximum(np.abs(x), np.abs(y)) > 1.0), axis=1)
    return np.asarray((count > 0) & ((in_pixels == 0) | (near < _LEAST_NEAR * count)))


def _blank(rows: _Rows) -> NDArray[np.bool_]:
    """True where ``has_smpl`` is set and the pose is 0: SMPL's rest pose, which is upside down in
    camera axes, so that no fit returns it.
    """
    return np.asarray(rows.has_smpl & ~rows.pose.any(axis=1))


def _not_radians(rows: _Rows) -> NDArray[np.bool_]:
    return np.asarray(np.abs(rows.pose).max(axis=1) > _FULL_TURNS)


def _not_metres(rows: _Rows) -> NDArray[np.bool_]:
    wrong = np.asarray((np.abs(rows.pose_3d) > _REACH).any(axis=(1, 2)))
    suspects = rows.pose_3d[wrong]
    far = (np.abs(suspects[:, :, :3]) > _REACH).any(axis=2)
    wrong[wrong] = (far & (suspects[:, :, 3] > 0)).any(axis=1)
    return wrong


VALUES: dict[str, tuple[Wrong, str]] = {
    "box_in_first_pixel": (_in_first_pixel, "center lies in -1 … 1"),
    "keypoints_off_box": (_off_box, "the 2D keypoints are not where the box is"),
    "blank_pose": (_blank, "all of pose is 0 though has_smpl is 1"),
    "pose_not_radians": (_not_radians, f"a joint is turned by more than {_FULL_TURNS:.1f}"),
    "joints_not_metres": (_not_metres, f"a joint of S is more than {_REACH:.0f} from the pelvis"),
}


def check_values(dataset: Dataset, source: Annotations, limits: Limits) -> list[Finding]:
    """Findings for values in another unit or of another row, which the build would store."""
    counts = dict.fromkeys(VALUES, 0)
    first: dict[str, int] = {}
    usable = np.ones(source.rows, bool)
    usable[list(source.faults)] = False
    for begin, rows in _chunks(source):
        for reason, (wrong, _) in VALUES.items():
            with np.errstate(over="ignore", invalid="ignore"):  # unusable rows may hold any value
                bad = np.flatnonzero(wrong(rows) & usable[begin : begin + len(rows.side)])
            counts[reason] += len(bad)
            if len(bad):
                first.setdefault(reason, begin + int(bad[0]))
    total = int(usable.sum())
    return [
        Finding(
            dataset.name,
            "labels",
            limits.grade(reason, counts[reason], total),
            f"{counts[reason]} of {total} rows: {reason}: {VALUES[reason][1]}; first, row {row} "
            f"({source.imgnames[row]})",
            FIXES[reason],
        )
        for reason, row in first.items()
    ]


def _chunks(source: Annotations) -> Iterator[tuple[int, _Rows]]:
    for begin in range(0, source.rows, _CHUNK):
        labels = source.take(range(begin, min(begin + _CHUNK, source.rows)))
        with np.errstate(over="ignore"):
            side = np.asarray(box_side(labels["scale"]))
        names = ("keypoints", "pose", "has_smpl", "pose_3d")
        yield begin, _Rows(labels["center"], side, *(labels[name] for name in names))
