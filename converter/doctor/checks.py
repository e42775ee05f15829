"""The checks that run at the beginning of a build. They take seconds, and prevent that a build of
hours stores wrong labels.
"""

from collections.abc import Sequence

from refit_shard.converter.build.driver import Prepared
from refit_shard.converter.doctor.dataset import check_presence
from refit_shard.converter.doctor.findings import Finding, Limits
from refit_shard.converter.doctor.frames import check_look, look_at, sample_frames
from refit_shard.converter.doctor.labels import check_keys, check_rows, check_values
from refit_shard.converter.doctor.remedies import PASSING
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.manifest import read_manifest
from refit_shard.shards_spec.storage.folder import open_folder

SAMPLE = 50  # frames


def check_before_build(prepared: Prepared, sample: int = SAMPLE) -> list[Finding]:
    """Check all labels and ``sample`` frames. A finding with the status ``fail`` is a reason not to
    build.

    The existence of every frame is checked only if too many of the sample are missing. A build that
    is already published is not checked.
    """
    request, dataset, source = prepared.request, prepared.recipe.dataset, prepared.source
    if not request.overwrite and _is_published(prepared):
        return []
    limits = Limits(max_bad=request.max_bad, certain=True)
    rows = check_rows(dataset, source, limits)
    # Fewer bad rows are not reported here: the build's summary counts them as quarantined.
    findings = [one for one in rows if one.status == "fail"]
    findings += check_keys(dataset, source) + check_values(dataset, source, limits)
    look = look_at(prepared, sample_frames(prepared, set(), sample), lambda: None)
    outside = sum(one.reason == "path_outside_root" for one in source.faults.values())
    lost = limits.grade("path_outside_root", outside, source.rows) == "fail"
    if lost or look.grade("missing", limits) == "fail":
        instead = "and" if not request.remaps else "with, in place of its remaps,"
        command = f"the same command {instead}"
        findings += check_presence(prepared, limits, command)[0]
        look.faults.pop("missing", None)
    # If storage failed, the build tries again, and only the shards of these frames fail.
    look.faults.pop(PASSING, None)
    findings += check_look(prepared, look, limits)
    return [one for one in findings if one.status != "ok"]


def stopped_by(findings: Sequence[Finding]) -> str:
    """The error text for a build that should not begin; empty if no check failed."""
    failed = [one.check for one in findings if one.status == "fail"]
    if not failed:
        return ""
    count = "a check" if len(failed) == 1 else f"{len(failed)} checks"
    return (
        f"{count} failed ({', '.join(dict.fromkeys(failed))}): correct the data as stated above, "
        "or pass --skip-checks to build it as it is"
    )


def _is_published(prepared: Prepared) -> bool:
    try:
        manifest = read_manifest(open_folder(prepared.request.out))
    except ShardError:
        return False
    return manifest.plan_hash == prepared.recipe.plan_hash
