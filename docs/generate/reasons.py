"""The page of reasons for which a row or a frame cannot be used, each with its remedy."""

from refit_shard.converter.doctor.remedies import FIXES

PATH = "reference/reasons.md"
_TEXT = """\
# Reasons and remedies

What [`doctor`](../guides/check.md) and [`build`](../guides/build.md) report of rows and frames that
cannot be used, and what to do. Reasons that a build stores in `quarantine.feather` are explained in
[the format](../how/format.md#reasons-for-quarantine).

| reason | what to do |
|---|---|
"""


def pages() -> dict[str, str]:
    """The page's Markdown by its path below ``docs/``."""
    rows = [f"| `{reason}` | {fix} |\n" for reason, fix in sorted(FIXES.items())]
    return {PATH: _TEXT + "".join(rows)}
