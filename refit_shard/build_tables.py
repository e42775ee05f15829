"""The output of ``refit-shard build``: the annotations, the plan, and the built datasets."""

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

Built = tuple[Summary, float]  # a build's summary and its duration in seconds


def print_annotations(prepared: Prepared) -> None:
    """Print which arrays the npz has and lacks, and how many rows cannot be used."""
    source, plan = prepared.source, prepared.plan
    name = prepared.recipe.dataset.name
    lines = [
        f"{name}: {source.rows} rows, {plan.frames} frames, {plan.shards} shards from {source.npz}",
        f"{name}: found {', '.join(source.found)}; missing: {', '.join(source.absent) or 'none'}"
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
    """A dataset's unusable rows and findings of the checks, for --json."""
    return {
        "dataset": prepared.recipe.dataset.name,
        "unusable": [dataclasses.asdict(one) for one in unusable_rows(prepared.source)],
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def planned_json(prepared: Prepared, findings: Iterable[Finding], plan: Estimate) -> dict[str, Any]:
    """A dataset's plan and findings of the checks, for --dry-run --json."""
    return {
        **checked_json(prepared, findings),
        **dataclasses.asdict(plan),
        "faults": len(prepared.source.faults),
    }


def print_planned(found: Sequence[tuple[Prepared, Estimate]]) -> None:
    """Print the table of a dry run, and examples of missing frames."""
    print_table(
        "plan (nothing was written)",
        ["dataset", "rows", "frames", "shards", "size", "time", "missing"],
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
    """The summary of a finished build, for --json."""
    return {**dataclasses.asdict(summary), "seconds": round(seconds, 3)}


def print_built(done: Sequence[Built], checked: Iterable[dict[str, Any]]) -> None:
    """Print the table of built datasets, then notes and warnings on each.

    ``checked``: :func:`checked_json` of each dataset that was checked.
    """
    columns = ["dataset", "rows", "frames", "shards", "kept", "size", "quarantined", "time"]
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
            f"{summary.dataset}: an earlier --overwrite is not finished: run it again to go on, or "
            f"delete {summary.out}/{OVERWRITE} to give it up"
        )
    say(f"{summary.dataset}: {summary.out}")
