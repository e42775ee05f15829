"""What ``refit-shard build`` says: of the annotations, of the plan and of what was built."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from refit_shard.console import human_bytes, human_seconds, print_table, say
from refit_shard.converter.build.driver import Prepared, Summary
from refit_shard.converter.build.estimate import Estimate
from refit_shard.converter.doctor.dataset import archives_line
from refit_shard.converter.doctor.findings import Finding
from refit_shard.converter.doctor.labels import unusable_rows
from refit_shard.shards_spec.names import OVERWRITE

Built = tuple[Summary, float]  # with the seconds that it took


def print_annotations(prepared: Prepared) -> None:
    """Say what the npz holds and what it does not."""
    source, plan = prepared.source, prepared.plan
    name = prepared.recipe.dataset.name
    lines = [
        f"{name}: {source.rows} rows, {plan.frames} frames, {plan.shards} shards from {source.npz}",
        f"{name}: found {', '.join(source.found)}; not there: {', '.join(source.absent) or 'none'}"
        + (f"; not used: {', '.join(source.unused)}" if source.unused else ""),
    ]
    if source.kept.fields:
        lines.append(f"{name}: kept {', '.join(map(str, source.kept.fields))}")
    if prepared.packed.archives.listed:
        lines.append(f"{name}: {archives_line(prepared)}")
    lines += [f"{name}: {one.rows} rows cannot be used: {one}" for one in unusable_rows(source)]
    for line in lines:
        say(line, error=True)


def checked_json(prepared: Prepared, findings: Iterable[Finding]) -> dict[str, Any]:
    """What --json says of the rows and the checks of a data set."""
    return {
        "dataset": prepared.recipe.dataset.name,
        "unusable": [dataclasses.asdict(one) for one in unusable_rows(prepared.source)],
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def planned_json(prepared: Prepared, findings: Iterable[Finding], plan: Estimate) -> dict[str, Any]:
    """What --dry-run --json says of a data set."""
    return {
        **checked_json(prepared, findings),
        **dataclasses.asdict(plan),
        "faults": len(prepared.source.faults),
    }


def print_planned(found: Sequence[tuple[Prepared, Estimate]]) -> None:
    """The table of a dry run, and the frames that are missing."""
    print_table(
        "plan (nothing was written)",
        ["data set", "rows", "frames", "shards", "size", "time", "missing"],
        [
            [
                one.recipe.dataset.name,
                f"{plan.rows}",
                f"{plan.frames}",
                f"{plan.shards}",
                human_bytes(plan.bytes),
                human_seconds(plan.seconds),
                f"{plan.missing}",
            ]
            for one, plan in found
        ],
    )
    for one, plan in found:
        if plan.missing:
            say(
                f"{one.recipe.dataset.name}: missing below {one.request.root}: "
                f"{', '.join(plan.examples)}, …"
            )


def built_json(summary: Summary, seconds: float) -> dict[str, Any]:
    """What --json says of a data set that was built."""
    return {**dataclasses.asdict(summary), "seconds": round(seconds, 3)}


def print_built(done: Sequence[Built], checked: Iterable[dict[str, Any]]) -> None:
    """The table of what was built, and what the user should know of it.

    ``checked``: :func:`checked_json` of each data set that was looked at.
    """
    columns = ["data set", "rows", "frames", "shards", "kept", "size", "quarantined", "time"]
    print_table("built", columns, [_cells(summary, seconds) for summary, seconds in done])
    for summary, _ in done:
        _print_notes(summary)
    built = {summary.dataset for summary, _ in done}
    for look in checked:
        for finding in look["findings"] if look["dataset"] in built else []:
            say(f"{look['dataset']}: warning: {finding['detail']}")


def _cells(summary: Summary, seconds: float) -> list[str]:
    counts = ", ".join(f"{count} {reason}" for reason, count in summary.quarantined.items())
    return [
        summary.dataset,
        f"{summary.rows} of {summary.source_rows}",
        f"{summary.frames}",
        f"{summary.shards}",
        f"{summary.kept_shards}",
        human_bytes(summary.bytes),
        counts or "0",
        human_seconds(seconds),
    ]


def _print_notes(summary: Summary) -> None:
    for text, count in summary.warned.items():
        say(f"{summary.dataset}: {count} rows were read with a warning: {text}")
    if summary.left_out:
        say(f"{summary.dataset}: {summary.left_out} rows of the npz were left out (--limit)")
    if summary.overwriting:
        say(
            f"{summary.dataset}: an --overwrite that did not end waits: give it again, or "
            f"drop it by deleting {summary.out}/{OVERWRITE}"
        )
    say(f"{summary.dataset}: {summary.out}")
