"""Checks whether a dataset is ready to be built. Nothing is changed; each check returns findings.

The annotations are read and planned by the code of the build, so everything that a build would
refuse is found here.
"""

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refit_shard.converter.annotations.columns import REQUIRED, ROW_SHAPES
from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.archives.find import OnBytes
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.build.driver import Prepared, prepare
from refit_shard.converter.build.estimate import estimate, missing_rows
from refit_shard.converter.build.request import BuildRequest
from refit_shard.converter.doctor.cures import Cure, find_cure
from refit_shard.converter.doctor.findings import Finding, Limits, Status
from refit_shard.converter.doctor.frames import check_look, look_at, sample_frames
from refit_shard.converter.doctor.labels import check_keys, check_rows, check_values
from refit_shard.converter.doctor.remedies import NPZ_FIX, fix_of
from refit_shard.converter.videos.places import videos_there
from refit_shard.shards_spec.errors import RefitShardError, SourceError, StorageError, UsageError
from refit_shard.shards_spec.storage.folder import open_folder

_SHOWN_REMAPS = 12
_REACH_FIX = "make the folder readable, or the store reachable"


@dataclass(frozen=True, kw_only=True)
class DatasetPaths:
    """A dataset with the paths or URLs of its npz and of the folder of its frames.

    ``out``: folder that its shards would be written to. ``command``: the build command for it, to
    which a fix adds options.
    """

    dataset: Dataset
    npz: str
    root: str
    out: str
    command: str


@dataclass(kw_only=True)
class Report:
    """The findings of one dataset. ``bytes``: what its shards would take on the disk, less the
    bytes of existing ones.
    """

    findings: list[Finding] = field(default_factory=list)
    bytes: int = 0


# ------------------------------------------------------------------------------ annotations


def check_npz(place: DatasetPaths) -> list[Finding]:
    """Check the npz's keys, shapes and dtypes from its headers. Nothing is unpickled."""
    name = place.dataset.name
    try:
        npz = Npz(place.npz)
    except (SourceError, StorageError) as error:
        return [Finding(name, "npz", "fail", str(error), NPZ_FIX)]
    npz.close()
    missing = [key for key in REQUIRED if key not in npz.entries]
    if missing:
        found = ", ".join(npz.entries) or "none"
        detail = f"{place.npz}: no key {', '.join(missing)}; found: {found}"
        return [Finding(name, "npz", "fail", detail, NPZ_FIX)]
    findings = []
    for key in ROW_SHAPES:
        if key in npz.entries and npz.entries[key].dtype.hasobject:
            detail = f"{place.npz}: {key!r} holds Python objects, not readable without unpickling"
            fix = f"save it again as a plain array: np.array(list_of_{key})"
            findings.append(Finding(name, "npz", "fail", detail, fix))
    if findings:
        return findings
    known = [
        f"{key} {entry.dtype.str.lstrip('<|=')}{list(entry.shape[1:]) or ''}"
        for key, entry in npz.entries.items()
        if key in ROW_SHAPES
    ]
    absent = ", ".join(key for key in ROW_SHAPES if key not in npz.entries)
    rows = npz.entries["imgname"].shape
    detail = f"{place.npz}: {rows[0] if rows else 0} rows; {', '.join(known)}"
    return [Finding(name, "npz", "ok", detail + (f"; not there: {absent}" if absent else ""))]


def check_labels(prepared: Prepared, limits: Limits) -> list[Finding]:
    """Check for labels that cannot be used or cannot be right, without reading frames."""
    dataset, source = prepared.recipe.dataset, prepared.source
    findings = check_rows(dataset, source, limits)
    if not findings:
        detail = f"{source.rows} rows in {prepared.plan.frames} frames; no NaN, no duplicates"
        findings.append(Finding(dataset.name, "rows", "ok", detail))
    if source.kept.fields:
        detail = f"carried along: {', '.join(map(str, source.kept.fields))}"
        findings.append(Finding(dataset.name, "keep", "ok", detail))
    return findings + check_keys(dataset, source) + check_values(dataset, source, limits)


# ----------------------------------------------------------------------------------- frames


def check_presence(
    prepared: Prepared, limits: Limits, command: str
) -> tuple[list[Finding], set[str]]:
    """Check that every row's frame exists. Returns the findings, and the paths that do not exist.

    ``command``: the build command to which the fix adds ``--remap``.
    """
    dataset, source, root = prepared.recipe.dataset, prepared.source, prepared.request.root
    count, absent = missing_rows(prepared)
    outside = [row for row, one in source.faults.items() if one.reason == "path_outside_root"]
    rows = len(prepared.plan.order)
    gone = set(absent)
    cure = None
    if (gone or outside) and "://" not in root and not dataset.cropped:
        lost = {source.imgnames[row] for row in outside}
        lost |= {n for n, path in zip(source.imgnames, source.paths, strict=True) if path in gone}
        located = sorted({*source.imgnames} - lost)
        remaps, archives = prepared.request.remaps, prepared.packed.archives
        cure = find_cure(root, sorted(lost), located, remaps, archives)
    findings = []
    if count:
        detail = f"{count} of {rows} rows have no frame below {root}, such as {absent[0]}"
        status = limits.grade("missing", count, rows)
        fix = _fix_of_missing(prepared, absent)
        if cure is not None:
            fix = "most are elsewhere: see layout"
        findings.append(Finding(dataset.name, "present", status, detail, fix))
    elif rows:
        detail = f"all {prepared.plan.frames} frames are below {root}"
        findings.append(Finding(dataset.name, "present", "ok", detail))
    findings += check_archives(prepared, missing=bool(count))
    if cure is not None:
        status = limits.grade("missing", count + len(outside), source.rows)
        findings.append(_layout(dataset, cure, status, command))
    return findings, gone


def _fix_of_missing(prepared: Prepared, paths: Sequence[str]) -> str:
    """The fix for missing frames: extracting them, if they are in videos, else a general one."""
    request, dataset = prepared.request, prepared.recipe.dataset
    videos = 0
    if "://" not in request.root:
        kept = open_folder(request.out, "--out").child(LISTS_FOLDER)
        videos = videos_there(dataset, request.root, paths, kept)
    if not videos:
        return fix_of(dataset, "missing")
    return f"{videos} videos contain them: run refit-shard extract-frames --dataset {dataset.name}"


def check_archives(prepared: Prepared, *, missing: bool) -> list[Finding]:
    """Report the archives below the root: those whose frames are read in place, and those whose
    frames cannot be read.

    ``missing``: True if any frame was not found.
    """
    dataset, packed = prepared.recipe.dataset, prepared.packed
    findings = []
    if packed.archives.listed:
        findings.append(Finding(dataset.name, "archives", "ok", archives_line(prepared)))
    if packed.archives.compressed and missing:
        which = ", ".join(packed.archives.compressed[:3])
        detail = f"{which}: compressed as a whole, so single frames cannot be read from it"
        fix = f"unpack it below {dataset.root_variable}: tar xf {packed.archives.compressed[0]}"
        findings.append(Finding(dataset.name, "archives", "warn", detail, fix))
    for path, inner in packed.archives.nested().items() if missing else ():
        detail = f"{path}: contains archives, such as {inner}, from which frames cannot be read"
        fix = f"unpack it below {dataset.root_variable}; the archives in it may stay packed"
        findings.append(Finding(dataset.name, "archives", "warn", detail, fix))
    return findings


def archives_line(prepared: Prepared) -> str:
    """A line that says how many archives are below the root, and how many frames they contain."""
    dataset, packed = prepared.recipe.dataset, prepared.packed
    count = len(packed.archives.listed)
    held = f"{dataset.root_variable} holds {count} archive{'s' if count > 1 else ''}"
    if not len(packed):
        return f"{held}, none with a frame that the npz names"
    return (
        f"{held}, nothing to unpack: {len(packed)} of {prepared.plan.frames} frames are read in "
        "place"
    )


def _layout(dataset: Dataset, cure: Cure, status: Status, command: str) -> Finding:
    """The finding that states where the frames are, with the options of a build that finds them."""
    remaps = tuple(remap.text for remap in cure.remaps)
    more = len(remaps) - _SHOWN_REMAPS
    options = " ".join(f"--remap {shlex.quote(text)}" for text in remaps[:_SHOWN_REMAPS])
    options += f" … and {more} more (--json lists all)" if more > 0 else ""
    ways = []
    if cure.root and dataset.root_variable.startswith("--"):
        ways = [f"pass {dataset.root_variable} {shlex.quote(cure.root)}"]
    elif cure.root:
        ways = [f"set {dataset.root_variable} to {cure.root}"]
    ways += [f"build with: {command} {options}"] if remaps else []
    name, path = cure.example
    detail = (
        f"another layout: {name} is at {path}; with the fix, {cure.cured} of the {cure.tried} "
        "missing frames that were tried are found"
    )
    return Finding(dataset.name, "layout", status, detail, ", or ".join(ways), remaps)


# ------------------------------------------------------------------------------------ disk


def _needed(prepared: Prepared, out: str) -> int:
    """Bytes that the shards would take, less those of the existing files."""
    existing = sum(open_folder(out).names().values())
    return max(0, estimate(prepared).bytes - existing)


def check_disk(needed: int, out: str) -> Finding:
    """Check that the shards of all datasets would fit on the disk of ``out``; ``needed``: bytes."""
    folder = Path(out).absolute()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{out}: about {needed / 1e9:.2f} GB of shards to write, {free / 1e9:.2f} GB free"
    if needed <= free:
        return Finding("disk", "space", "ok", detail)
    fix = f"free {(needed - free) / 1e9:.2f} GB there, or build with --out on another disk"
    return Finding("disk", "space", "fail", detail, fix)


# -------------------------------------------------------------------------------- dataset


def check_dataset(
    place: DatasetPaths,
    sample: int | None,
    on_plan: Callable[[int], None],
    on_frame: Callable[[], None],
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Report:
    """Run all checks of one dataset whose root and npz exist.

    Args:
        place: the dataset and its paths.
        sample: number of frames to decode, None for all.
        on_plan: called once with the number of frames that will be decoded.
        on_frame: called after each decoded frame.
        on_bytes: called with the bytes of archives that are listed so far, and their total.
    """
    report = Report(findings=check_npz(place))
    if any(one.status == "fail" for one in report.findings):
        return report
    request = BuildRequest(dataset=place.dataset, npz=place.npz, root=place.root, out=place.out)
    name = place.dataset.name
    try:
        prepared = prepare(request, on_bytes=on_bytes)
    except SourceError as error:
        report.findings.append(Finding(name, "labels", "fail", str(error), NPZ_FIX))
        return report
    except (StorageError, UsageError) as error:
        report.findings.append(Finding(name, "present", "fail", str(error), _REACH_FIX))
        return report
    limits = Limits()
    report.findings += check_labels(prepared, limits)
    try:
        findings, gone = check_presence(prepared, limits, place.command)
        report.findings += findings
        frames = sample_frames(prepared, gone, sample)
        on_plan(len(frames))
        report.findings += check_look(prepared, look_at(prepared, frames, on_frame), limits)
        report.bytes = _needed(prepared, place.out) if frames else 0
    except RefitShardError as error:  # a folder that may not be listed, an unreachable object store
        report.findings.append(Finding(name, "present", "fail", str(error), _REACH_FIX))
    return report
