"""Findings of the checks of a data folder, and how many wrong rows are tolerated."""

import math
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

MAX_BAD = 0.05  # of the rows, as --max-bad of build
_MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
# A build stores rows with these faults. If more than this share of the rows have one, the labels as
# a whole cannot be right. A fault that no correct label has gets the same limit as unusable rows. A
# fault that occurs in correct datasets too (boxes that leave the frame, joints of another person, a
# few blank fits) must be found in most rows.
WRONG_LABELS: dict[str, float] = {
    "other_size": MAX_BAD,
    "turned_size": MAX_BAD,
    "huge_box": MAX_BAD,
    "pose_not_radians": MAX_BAD,
    "joints_not_metres": MAX_BAD,
    "box_in_first_pixel": 0.5,
    "center_outside_image": 0.5,
    "keypoints_off_box": 0.5,
    "blank_pose": 0.5,
    "off_centre_camera": 1.0,
}


@dataclass(frozen=True)
class Finding:
    """What one check of one dataset or file found, and the fix unless the status is ``ok``.

    ``remaps``: all values for ``build --remap``; ``fix`` lists only the first of them.
    """

    subject: str
    check: str
    status: Status
    detail: str
    fix: str = ""
    remaps: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The status as a word of four letters or fewer."""
        return _MARKS[self.status]

    @property
    def line(self) -> str:
        """The finding as one line, its fix at the end."""
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{self.mark:4}  {self.subject:13}  {self.check:15}  {self.detail}{fix}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many rows may be wrong before a check fails.

    ``max_bad``: the share of rows that may end in quarantine. ``certain``: True to fail only if the
    share in a sample is larger than chance explains (three standard deviations), or than half; so a
    few bad frames in a sample do not stop a build whose total share is below the limit.
    """

    max_bad: float = MAX_BAD
    certain: bool = False

    def grade(self, reason: str, bad: float, total: float) -> Status:
        """``fail`` if ``bad`` of ``total`` rows are too many for this reason, else ``warn``."""
        share = WRONG_LABELS.get(reason, self.max_bad)
        limit = share * total
        if self.certain:
            chance = 3.0 * math.sqrt(limit * (1.0 - share)) + 1.0
            limit = min(limit + chance, max(0.5, share) * total)
        return "fail" if bad > limit else "warn"
