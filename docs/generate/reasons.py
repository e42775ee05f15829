"""The page of reasons why a row or a frame cannot be used, each with its remedy."""

from refit_shard.converter.doctor.remedies import FIXES

PATH = "reference/reasons.md"
_TEXT = """\
# Reasons and remedies

The reasons that [`doctor`](../guides/check.md) and [`build`](../guides/build.md) report for rows
and frames that cannot be used, and what to do about each. [The
format](../how/format.md#reasons-for-quarantine) explains the reasons in `quarantine.feather`.

| reason | what to do |
|---|---|
"""


def pages() -> dict[str, str]:
    """The page's Markdown by its path below ``docs/``."""
    rows = [f"| `{reason}` | {fix} |\n" for reason, fix in sorted(FIXES.items())]
    return {PATH: _TEXT + "".join(rows)}
