"""The build of one dataset: read, plan, make every shard, account for every row, publish."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from refit_shard.converter.annotations.keep import check_columns
from refit_shard.converter.annotations.source import Annotations, read_annotations
from refit_shard.converter.archives.find import OnBytes, find_packed
from refit_shard.converter.archives.holdings import Packed
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.build.accounting import misplaced
from refit_shard.converter.build.identity import identity
from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.build.plan import Plan, make_plan
from refit_shard.converter.build.publish import Publisher, open_publisher
from refit_shard.converter.build.request import BuildRequest
from refit_shard.converter.build.run import Work, run_tasks, time_limit
from refit_shard.converter.build.task import Recipe, ShardResult, ShardTask
from refit_shard.converter.build.work import build_shard
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import BuildError, RefitShardError
from refit_shard.shards_spec.fields import standard_fields, with_own
from refit_shard.shards_spec.geometry import CROPPED_ENVELOPE, Envelope
from refit_shard.shards_spec.manifest import Manifest, plan_hash
from refit_shard.shards_spec.names import sample_key
from refit_shard.shards_spec.process import settle_process
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.storage.paths import absolute
from refit_shard.shards_spec.writer import Quarantined, quarantine_bytes

OnShard = Callable[[ShardResult], None]

# If this many shards fail in a row, the storage as a whole has failed, and the build ends: waiting
# for every other shard to fail would take hours.
_FAILURES_IN_A_ROW = 8


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A build request with its annotations, its plan and its identity.

    ``packed``: the frames that are members of archives.
    """

    request: BuildRequest
    source: Annotations
    plan: Plan
    recipe: Recipe
    identity: dict[str, Any]
    packed: Packed


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a build: what its folder contains now.

    ``source_rows``: rows of the npz that were considered. ``left_out``: rows that were not
    (``--limit``). ``kept_shards``: shards that existed already. ``bytes``: of all shards.
    ``quarantined``: rows by reason. ``warned``: rows whose frame was read with a warning, by its
    text. ``overwriting``: True if files of an interrupted ``--overwrite`` are in the folder too.
    """

    dataset: str
    out: str
    source_rows: int
    left_out: int
    rows: int
    frames: int
    shards: int
    kept_shards: int
    bytes: int
    quarantined: dict[str, int]
    warned: dict[str, int]
    overwriting: bool


def prepare(
    request: BuildRequest,
    *,
    keep_lists: bool = False,
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Prepared:
    """Read the annotations, list the archives below the root, and plan the shards.

    Args:
        request: what to build.
        keep_lists: True to save the lists of archives' members below ``out``. Nothing else is
            written.
        on_bytes: called with the bytes of archives that are listed so far, and their total.

    Raises:
        SourceError: the npz or an archive cannot be used.
        StorageError: the object store of the npz or of the frames cannot be reached.
    """
    settle_process()
    root = open_folder(request.root, "--root")
    root.reach()
    dataset, options = request.dataset, request.options
    source = read_annotations(
        request.npz,
        request.root,
        use_pose_3d=dataset.use_pose_3d,
        remaps=request.remaps,
        limit=options.limit,
        keep=request.keep,
    )
    envelope = CROPPED_ENVELOPE if dataset.cropped else Envelope(scale=options.envelope)
    fields = standard_fields(
        extrinsics=source.extrinsics,
        key_bytes=len(sample_key(dataset.name, source.rows)),
        imgname_bytes=source.imgname_bytes,
    )
    fields = with_own(fields, source.kept.fields)
    check_columns(fields, request.npz)
    content = identity(dataset, source, options, envelope, fields)
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
        packed=find_packed(
            root,
            [path for path in source.paths if path],
            open_folder(request.out, "--out").child(LISTS_FOLDER),
            keep=keep_lists,
            on_bytes=on_bytes,
        ),
    )


def make_task(prepared: Prepared, index: int) -> ShardTask:
    """The task of one shard: its rows with their paths, members of archives and labels."""
    source, plan = prepared.source, prepared.plan
    rows = plan.rows_of(index)
    paths = [source.paths[row] for row in rows]
    return ShardTask(
        index=index,
        source_rows=rows,
        frames=plan.frame_of_row[rows],
        imgnames=[source.imgnames[row] for row in rows],
        paths=paths,
        members=prepared.packed.members(paths),
        labels=source.take(rows) | source.kept.take(rows),
    )


def build(prepared: Prepared, on_shard: OnShard) -> Summary:
    """Build the shards that do not exist yet, and publish the manifest.

    ``on_shard``: called with every shard, built or kept. After a BuildError or a StorageError the
    finished shards stay, and calling ``build`` again continues.

    Raises:
        UsageError: the folder holds shards of another plan, or another build is running.
        BuildError: rows or shards failed.
        StorageError: writing failed.
    """
    request, recipe = prepared.request, prepared.recipe
    if request.on_error == "fail" and prepared.source.faults:
        raise _first_fault(prepared, list(prepared.source.faults.values()))
    folder = open_folder(request.out, "--out")
    folder.create()
    with build_lock(folder):
        publisher = open_publisher(
            folder, recipe.dataset.name, prepared.identity, overwrite=request.overwrite
        )
        try:
            results = _run(prepared, publisher, on_shard)
            return _finish(prepared, publisher, results)
        except RefitShardError:
            publisher.clear()
            raise


def _run(prepared: Prepared, publisher: Publisher, on_shard: OnShard) -> list[ShardResult]:
    """The results of all shards, in the order of the plan. Each shard gets its final name as soon
    as it is finished.

    Raises:
        BuildError: shards failed, or a row did and ``on_error`` is ``fail``.
    """
    request, shards = prepared.request, prepared.plan.shards
    results: dict[int, ShardResult] = {}
    failures: dict[int, BaseException] = {}
    in_a_row = 0

    def on_result(index: int, result: ShardResult | BaseException) -> None:
        nonlocal in_a_row
        if isinstance(result, BaseException):
            failures[index] = result
            in_a_row += 1
            if in_a_row == _FAILURES_IN_A_ROW:
                raise _shard_failures(failures, shards)
            return
        in_a_row = 0
        results[index] = publisher.publish(result)
        on_shard(results[index])
        if request.on_error == "fail" and result.quarantined:
            raise _first_fault(prepared, list(result.quarantined))

    tasks: Iterator[ShardTask] = (
        replace(make_task(prepared, index), candidates=publisher.candidates.get(index, ()))
        for index in range(shards)
    )
    work = Work(
        do=build_shard,
        shared=prepared.recipe,
        seconds=lambda task: request.shard_timeout or time_limit(len(task.source_rows)),
        deaths="killed, out of memory, or over the time limit (--shard-timeout)",
    )
    run_tasks(work, tasks, on_result, workers=request.workers, address=request.address)
    if failures:
        raise _shard_failures(failures, shards)
    return [results[index] for index in range(shards)]


def _first_fault(prepared: Prepared, rows: list[Quarantined]) -> BuildError:
    row = min(rows, key=lambda fault: fault.source_row)
    return BuildError(
        f"{prepared.recipe.dataset.name}: row {row.source_row} ({row.imgname}): {row.reason}: "
        f"{row.detail}; --on-error fail stops at the first bad row"
    )


def _shard_failures(failures: dict[int, BaseException], shards: int) -> BuildError:
    index, error = min(failures.items())
    failure = BuildError(
        f"{len(failures)} of {shards} shards failed, the first, {index}, with "
        f"{type(error).__name__}: {error}; the others are kept: run the same command again"
    )
    failure.__cause__ = error
    return failure


def _finish(prepared: Prepared, publisher: Publisher, results: list[ShardResult]) -> Summary:
    """Check that every row is in one place, then publish the quarantine and, last, the manifest."""
    source, request = prepared.source, prepared.request
    url = publisher.folder.url
    quarantined = list(source.faults.values())
    for result in results:
        quarantined += result.quarantined
    wrong = misplaced(
        source.total,
        source.left_out,
        [result.rows for result in results],
        [row.source_row for row in quarantined],
    )
    if wrong is not None:
        raise BuildError(
            f"{url}: each of the {source.total} rows must be once in a shard, in quarantine or "
            f"left out, but: {wrong}; build again with --overwrite, and report this bug"
        )
    manifest = _manifest(prepared, results, quarantined)

    def check(place: str) -> None:
        if manifest.rows == 0 or len(quarantined) > request.max_bad * source.rows:
            raise _too_many_bad(url, place, manifest.quarantined, source.rows, request.max_bad)

    publisher.switch(manifest, quarantine_bytes(quarantined), check)
    return Summary(
        dataset=manifest.dataset,
        out=url,
        source_rows=source.rows,
        left_out=manifest.left_out_rows,
        rows=manifest.rows,
        frames=manifest.frames,
        shards=len(results),
        kept_shards=sum(result.kept for result in results),
        bytes=sum(result.entry.tar_bytes + result.entry.arrow_bytes for result in results),
        quarantined=dict(manifest.quarantined),
        warned=dict(manifest.warned),
        overwriting=publisher.target.hidden is not None,
    )


def _manifest(
    prepared: Prepared, results: list[ShardResult], quarantined: list[Quarantined]
) -> Manifest:
    recipe, options, source = prepared.recipe, prepared.request.options, prepared.source
    warned: Counter[str] = Counter()
    for result in results:
        warned.update(result.warned)
    return Manifest(
        dataset=recipe.dataset.name,
        plan=prepared.identity,
        generation=0,  # replaced when the manifest is published
        fields=recipe.fields,
        envelope=recipe.envelope,
        box_px=options.box_px,
        quality=options.quality,
        restart_interval=0 if recipe.dataset.cropped else jpeg.RESTART_INTERVAL,
        seed=options.seed,
        source_sha256=source.sha256,
        source_rows=source.total,
        left_out=source.left_out,
        rows=sum(result.entry.rows for result in results),
        frames=sum(result.frames for result in results),
        quarantined=dict(sorted(Counter(row.reason for row in quarantined).items())),
        warned=dict(sorted(warned.items())),
        shards=tuple(result.entry for result in results),
    )


def _too_many_bad(
    url: str, place: str, counts: Mapping[str, int], rows: int, max_bad: float
) -> BuildError:
    """The error for too many rows in quarantine. ``place``: path or URL of the quarantine file."""
    bad = sum(counts.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    if bad == rows:
        return BuildError(
            f"{url}: all {rows} rows are in quarantine ({reasons}), so there is nothing to "
            f"publish; see {place}, correct the data and run the same command again"
        )
    return BuildError(
        f"{url}: {bad} of {rows} rows are in quarantine ({bad / rows:.1%}; {reasons}), more "
        f"than --max-bad {max_bad:g}; see {place}, correct the data and run the "
        "same command again, or allow more with --max-bad"
    )
