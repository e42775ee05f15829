"""What the checks of a data folder say, and how many wrong rows they bear."""

import math
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

MAX_BAD = 0.05  # of the rows, as --max-bad of build
_MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
# Rows whose labels are wrong and that a build would store all the same: the share of them beyond
# which the labels as a whole cannot be right. What no true label shows is borne as little as a bad
# row; where true data have oddities (boxes that leave the frame, joints of a neighbour, a few fits
# left blank), most rows must show it.
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
    """What one check of one subject found, and what to do about it unless it is ``ok``.

    ``remaps``: for ``build --remap``, all of those that ``fix`` may only begin to list.
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

    ``max_bad``: the share of rows that may end in quarantine. ``certain``: fail only where more are
    wrong than chance may put into a sample, or than half, so that a build's own count of its bad
    rows is not forestalled by a few frames.
    """

    max_bad: float = MAX_BAD
    certain: bool = False

    def grade(self, reason: str, bad: float, total: float) -> Status:
        """``fail`` where ``bad`` of ``total`` rows are too many, else ``warn``."""
        share = WRONG_LABELS.get(reason, self.max_bad)
        limit = share * total
        if self.certain:
            chance = 3.0 * math.sqrt(limit * (1.0 - share)) + 1.0
            limit = min(limit + chance, max(0.5, share) * total)
        return "fail" if bad > limit else "warn"
