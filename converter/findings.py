"""What the checks of a data folder say."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

MAX_BAD = 0.05  # of the rows, as --max-bad of build


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


def graded(bad: int, total: int) -> Status:
    """A few bad rows are left out by the build, which stops at more."""
    return "fail" if bad > MAX_BAD * total else "warn"
