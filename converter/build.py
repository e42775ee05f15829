"""The build of one data set: read, plan, make every shard, account for every row, publish."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from converter.datasets import Dataset
from converter.lock import build_lock
from converter.plan import BuildOptions, Plan, identity, make_plan
from converter.run import run_here, run_on_ray
from converter.source import Source, read_source
from converter.work import Recipe, ShardResult, ShardTask
from shards_spec import jpeg
from shards_spec.errors import BuildError, ShardError, UsageError
from shards_spec.fields import standard_fields
from shards_spec.geometry import CROPPED_ENVELOPE, FULL_ENVELOPE
from shards_spec.layout import (
    MANIFEST,
    QUARANTINE,
    TEMPORARY_SUFFIX,
    check_dataset_name,
    sample_key,
    shard_stem,
)
from shards_spec.manifest import Manifest, plan_hash, read_manifest
from shards_spec.paths import absolute, location
from shards_spec.reader import read_index, read_seal
from shards_spec.storage import Folder, open_folder
from shards_spec.values import hold, number, whole
from shards_spec.writer import Quarantined, quarantine_bytes

OnShard = Callable[[ShardResult], None]


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """One data set to build. Paths of any kind are held as text.

    ``npz``: path or URL of its annotations. ``root``: folder or URL of its frames. ``out``: folder
    or URL that its shards go to. ``workers``: None for all cores, 0 for this process.
    ``shard_timeout``: seconds that a worker may take for one shard, by default 2 a row and at least
    600. ``max_bad``: the share of rows that may end in quarantine. ``overwrite``: delete shards of
    another plan instead of refusing.

    Raises:
        UsageError: a value is out of its bounds.
    """

    dataset: Dataset
    npz: str
    root: str
    out: str
    options: BuildOptions = field(default_factory=BuildOptions)
    workers: int | None = None
    address: str | None = None
    shard_timeout: float | None = None
    on_error: Literal["quarantine", "fail"] = "quarantine"
    max_bad: float = 0.05
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset.name)
        for name in ("npz", "root", "out"):
            hold(self, **{name: location(getattr(self, name), f"--{name}")})
        hold(self, max_bad=number("--max-bad", self.max_bad, 0.0, 1.0))
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 0, 4096))
        for option in ("address", "shard_timeout"):
            if self.workers == 0 and getattr(self, option) is not None:
                name = "--" + option.replace("_", "-")
                raise UsageError(f"--workers 0 builds in this process; it does not go with {name}")
        if self.shard_timeout is not None:
            hold(self, shard_timeout=number("--shard-timeout", self.shard_timeout, 1e-3, 1e6))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request with its source read and its plan made; nothing has been written."""

    request: BuildRequest
    source: Source
    plan: Plan
    recipe: Recipe
    identity: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What stands on disk after a build."""

    dataset: str
    out: str
    source_rows: int
    rows: int
    frames: int
    shards: int
    kept_shards: int
    bytes: int
    quarantined: dict[str, int]


def prepare(request: BuildRequest) -> Prepared:
    """Read the annotations and plan the shards.

    Raises:
        SourceError: the npz cannot be used.
        StorageError: the object store of the npz or of the frames cannot be reached.
    """
    open_folder(request.root, "--root").reach()
    dataset, options = request.dataset, request.options
    source = read_source(
        request.npz,
        request.root,
        use_pose_3d=dataset.use_pose_3d,
        remaps=options.remaps,
        limit=options.limit,
    )
    envelope = CROPPED_ENVELOPE if dataset.cropped else FULL_ENVELOPE
    fields = standard_fields(
        extrinsics=source.extrinsics,
        key_bytes=len(sample_key(dataset.name, source.rows)),
        imgname_bytes=source.imgname_bytes,
    )
    content = identity(dataset.name, source, options, envelope, fields)
    recipe = Recipe(
        dataset=dataset,
        root=absolute(request.root),
        out=absolute(request.out),
        envelope=envelope,
        box_px=options.box_px,
        quality=options.quality,
        plan_hash=plan_hash(content),
        fields=fields,
    )
    return Prepared(
        request=request,
        source=source,
        plan=make_plan(source, options),
        recipe=recipe,
        identity=content,
    )


def make_task(prepared: Prepared, index: int) -> ShardTask:
    """The slice of the annotations that one shard needs."""
    source, plan = prepared.source, prepared.plan
    rows = plan.rows_of(index)
    return ShardTask(
        index=index,
        source_rows=rows,
        frames=plan.frame_of_row[rows],
        imgnames=[source.imgnames[row] for row in rows],
        paths=[source.paths[row] for row in rows],
        labels={name: values[rows] for name, values in source.labels.items()},
    )


def build(prepared: Prepared, on_shard: OnShard) -> Summary:
    """Build what is not there yet; ``on_shard`` hears of every shard.

    Raises:
        UsageError: the folder holds shards of another plan, or another build is running.
        BuildError: rows or shards failed; the finished shards stay, the same call goes on.
        StorageError: writing failed; the same call goes on.
    """
    request = prepared.request
    if request.on_error == "fail" and prepared.source.faults:
        raise _first_fault(prepared, list(prepared.source.faults.values()))
    folder = open_folder(request.out, "--out")
    folder.create()
    with build_lock(folder):
        _clear(prepared, folder)
        results, failures = _run(prepared, on_shard)
        if failures:
            raise _shard_failures(failures, prepared.plan.shards)
        return _finish(prepared, folder, results)


def _run(
    prepared: Prepared, on_shard: OnShard
) -> tuple[dict[int, ShardResult], dict[int, BaseException]]:
    request = prepared.request
    results: dict[int, ShardResult] = {}
    failures: dict[int, BaseException] = {}

    def on_result(index: int, result: ShardResult | BaseException) -> None:
        if isinstance(result, BaseException):
            failures[index] = result
            return
        results[index] = result
        on_shard(result)
        if request.on_error == "fail" and result.quarantined:
            raise _first_fault(prepared, list(result.quarantined))

    tasks: Iterator[ShardTask] = (
        make_task(prepared, index) for index in range(prepared.plan.shards)
    )
    if request.workers == 0:
        run_here(prepared.recipe, tasks, on_result)
    else:
        run_on_ray(
            prepared.recipe,
            tasks,
            on_result,
            workers=request.workers,
            address=request.address,
            shard_timeout=request.shard_timeout,
        )
    return results, failures


def _first_fault(prepared: Prepared, rows: list[Quarantined]) -> BuildError:
    row = min(rows, key=lambda fault: fault.source_row)
    return BuildError(
        f"{prepared.recipe.dataset.name}: row {row.source_row} ({row.imgname}): {row.reason}: "
        f"{row.detail}; --on-error fail stops at the first bad row"
    )


def _shard_failures(failures: dict[int, BaseException], shards: int) -> BuildError:
    index, error = min(failures.items())
    built = BuildError(
        f"{len(failures)} of {shards} shards failed, the first, {index}, with "
        f"{type(error).__name__}: {error}; the others are kept: run the same command again"
    )
    built.__cause__ = error
    return built


def _ours(prepared: Prepared, folder: Folder) -> list[str]:
    """Files in the folder that builds of this data set wrote, half-written ones too."""
    name = re.escape(prepared.recipe.dataset.name)
    whole = rf"{re.escape(MANIFEST)}|{re.escape(QUARANTINE)}|{name}-\d{{6,}}\.(tar|arrow)"
    ours = re.compile(rf"({whole})|\.({whole})\.[0-9a-f]+{re.escape(TEMPORARY_SUFFIX)}")
    return [found for found in sorted(folder.names()) if ours.fullmatch(found)]


def _clear(prepared: Prepared, folder: Folder) -> None:
    """Remove what a killed build left half written; refuse or remove what is another plan's."""
    difference = _difference(prepared, folder, folder.names())
    if difference is not None and not prepared.request.overwrite:
        raise UsageError(
            f"{folder.url}: holds shards built {difference}; "
            "pass --overwrite to replace them, or choose another --out"
        )
    _remove_all_but(prepared, folder, set() if difference else _planned(prepared))


def _planned(prepared: Prepared) -> set[str]:
    """Names of the files that a finished build leaves."""
    name, shards = prepared.recipe.dataset.name, range(prepared.plan.shards)
    stems = [shard_stem(name, index) for index in shards]
    return {MANIFEST, QUARANTINE, *(stem + end for stem in stems for end in (".tar", ".arrow"))}


def _remove_all_but(prepared: Prepared, folder: Folder, kept: set[str]) -> None:
    """Remove files that builds of this data set wrote, the manifest first."""
    gone = set(_ours(prepared, folder)) - kept
    for name in sorted(gone, key=lambda name: (name != MANIFEST, name)):
        folder.remove(name)


def _difference(prepared: Prepared, folder: Folder, names: dict[str, int]) -> str | None:
    """How the shards in the folder differ from the plan, in words; None where they do not."""
    if MANIFEST in names:
        try:
            manifest = read_manifest(folder)
        except ShardError as error:
            return f"by another version ({error})"
        if manifest.plan_hash != prepared.recipe.plan_hash:
            return _named_difference(prepared, manifest)
    stem = prepared.recipe.dataset.name + "-"
    for name in sorted(names):
        if name.startswith(stem) and name.endswith(".arrow"):
            try:
                seal = read_seal(read_index(folder, name), name)
            except ShardError:
                continue  # damaged: it is built again
            if seal.plan_hash != prepared.recipe.plan_hash:
                return "from another source or with other options"
    return None


def _named_difference(prepared: Prepared, manifest: Manifest) -> str:
    wanted = prepared.identity
    built = {
        "source_sha256": manifest.source_sha256,
        "box_px": manifest.box_px,
        "quality": manifest.quality,
        "seed": manifest.seed,
    }
    for name, value in built.items():
        if wanted[name] != value:
            if name == "source_sha256":
                return f"from another npz than {prepared.request.npz}"
            return f"with {name} {value}, not {wanted[name]}"
    return "from another source or with other options"


def _finish(prepared: Prepared, folder: Folder, results: dict[int, ShardResult]) -> Summary:
    """Account for every row, then publish the quarantine and, last, the manifest."""
    source, request = prepared.source, prepared.request
    ordered = [results[index] for index in sorted(results)]
    quarantined = list(source.faults.values())
    for result in ordered:
        quarantined += result.quarantined
    rows = sum(result.entry.rows for result in ordered)
    if rows + len(quarantined) != source.rows:
        raise BuildError(
            f"{folder.url}: {source.rows} rows went in, {rows} are in shards and "
            f"{len(quarantined)} in quarantine; build again with --overwrite, and report this"
        )
    _remove_all_but(prepared, folder, _planned(prepared))  # what a dead worker left half written
    folder.write(QUARANTINE, quarantine_bytes(quarantined))
    counts = dict(sorted(Counter(row.reason for row in quarantined).items()))
    if rows == 0 or len(quarantined) > request.max_bad * source.rows:
        raise _too_many_bad(folder, counts, len(quarantined), source.rows, request.max_bad)
    manifest = _manifest(prepared, ordered, rows, counts)
    folder.write(MANIFEST, manifest.to_json())
    return Summary(
        dataset=manifest.dataset,
        out=folder.url,
        source_rows=source.rows,
        rows=rows,
        frames=manifest.frames,
        shards=len(ordered),
        kept_shards=sum(result.kept for result in ordered),
        bytes=sum(result.entry.tar_bytes + result.entry.arrow_bytes for result in ordered),
        quarantined=counts,
    )


def _manifest(
    prepared: Prepared, results: list[ShardResult], rows: int, counts: dict[str, int]
) -> Manifest:
    recipe, options = prepared.recipe, prepared.request.options
    return Manifest(
        dataset=recipe.dataset.name,
        plan=prepared.identity,
        generation=0,
        fields=recipe.fields,
        envelope=recipe.envelope,
        box_px=options.box_px,
        quality=options.quality,
        restart_interval=0 if recipe.dataset.cropped else jpeg.RESTART_INTERVAL,
        seed=options.seed,
        source_sha256=prepared.source.sha256,
        source_rows=prepared.source.rows,
        left_out=(),
        rows=rows,
        frames=sum(result.frames for result in results),
        quarantined=counts,
        warned={},
        shards=tuple(result.entry for result in results),
    )


def _too_many_bad(
    folder: Folder, counts: dict[str, int], bad: int, rows: int, max_bad: float
) -> BuildError:
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    if bad == rows:
        return BuildError(
            f"{folder.url}: all {rows} rows are in quarantine ({reasons}), so there is nothing to "
            f"publish; see {folder.url}/{QUARANTINE}, mend the data and run the same command again"
        )
    return BuildError(
        f"{folder.url}: {bad} of {rows} rows are in quarantine ({bad / rows:.1%}; {reasons}), more "
        f"than --max-bad {max_bad:g}; see {folder.url}/{QUARANTINE}, mend the data and run the "
        "same command again, or allow more with --max-bad"
    )


__all__ = ["BuildRequest", "Prepared", "Summary", "build", "make_task", "prepare"]
