"""Carries out an export: one folder or file for each dataset below OUT. Files are renamed once they
are complete.

A note in OUT says what is exported there. It is written first and, with ``finished``, again last;
so a run that was stopped is known again, keeps the files that are there, and makes the others.
A local file that was cut off, as after a crash of the machine, is made anew; an object store has
whole ones only.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.export.energon import META, write_energon
from refit_shard.converter.export.parquet import parquet_name, write_parquet
from refit_shard.converter.export.plan import ExportPlan, SetExport
from refit_shard.converter.export.shards import write_subset
from refit_shard.converter.export.tars import write_tar
from refit_shard.converter.export.wids import WIDS_INDEX, wids_index
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.names import LOCK, TEMPORARY_SUFFIX, final_name
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.storage.folder import Folder, open_folder

NOTE = ".export.json"
# Increased whenever the same rows would give other bytes than before.
_RECIPE = 1
_MAX_NOTE = 1 << 20
# The last bytes of a whole file, by its format.
_TAR_END, _PARQUET_END = bytes(1024), b"PAR1"
_BUSY = "another export is writing there; wait for it or choose another --out"

OnRows = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The exported files of one dataset.

    ``rows``: exported rows; ``of_rows``: all rows of the dataset. ``files``: number of tars, shards
    or Parquet files; ``kept``: those that an interrupted run has written. ``bytes``: of all files.
    """

    dataset: str
    out: str
    rows: int
    of_rows: int
    files: int
    kept: int
    bytes: int


def export(plan: ExportPlan, on_rows: OnRows) -> list[Exported]:
    """Write the files that do not exist yet. If killed at any time, the same call continues.

    ``on_rows``: called with the number of rows that were exported since the last call.

    Raises:
        UsageError: OUT holds something else, or is in the folder of an exported dataset.
        ShardError: a sample is damaged.
        StorageError: reading or writing failed.
    """
    folder = open_folder(plan.out, "--out")
    for one in plan.sets:
        if _is_within(folder, one.data_set.folder):
            raise UsageError(
                f"{folder.url}: is in the folder of {one.dataset}, which is exported; choose "
                "another --out"
            )
    folder.create()
    with build_lock(folder, _BUSY):
        _claim(folder, plan)
        done = [_export_set(plan, one, folder, on_rows) for one in plan.sets]
        folder.write(NOTE, _note(plan, finished=True))
    return done


def _is_within(folder: Folder, other: Folder) -> bool:
    """True if ``folder`` is ``other`` or below it, also by way of symbolic links."""
    if folder.local is None or other.local is None:
        return f"{folder.url}/".startswith(f"{other.url.rstrip('/')}/")
    return folder.local.resolve().is_relative_to(other.local.resolve())


def _note(plan: ExportPlan, *, finished: bool) -> bytes:
    content = {
        "format": "refit-shard export",
        "recipe": _RECIPE,
        "kind": plan.form,
        "sets": {one.dataset: one.identity(plan.where) for one in plan.sets},
        "finished": finished,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _claim(folder: Folder, plan: ExportPlan) -> None:
    """Write the note of this export, unless the folder has it already; the folder must be empty or
    hold this export.

    Raises:
        UsageError: the folder holds something else.
    """
    begun, ended = _note(plan, finished=False), _note(plan, finished=True)
    names = folder.names()
    if NOTE in names:
        if folder.read(NOTE, limit=_MAX_NOTE) not in (begun, ended):
            raise UsageError(
                f"{folder.url}: holds an export of other rows or in another format; choose another "
                "--out, or delete it"
            )
    elif folder.folders() or any(final_name(name) not in (NOTE, LOCK) for name in names):
        raise UsageError(
            f"{folder.url}: is not empty and does not hold an export; choose another --out"
        )
    else:
        folder.write(NOTE, begun)
    _sweep(folder)


def _sweep(folder: Folder) -> None:
    """Delete temporary files of a run that was killed."""
    for name in folder.names():
        if name.endswith(TEMPORARY_SUFFIX) and final_name(name) != name:
            folder.remove(name)


def _export_set(plan: ExportPlan, chosen: SetExport, out: Folder, on_rows: OnRows) -> Exported:
    if plan.form == "parquet":
        return _parquet(chosen, out, on_rows)
    folder = out.child(chosen.dataset)
    folder.create()
    if plan.form == "shards":
        return _shards(plan, chosen, folder, on_rows)
    for place in (folder, folder.child(META)):
        _sweep(place)
    kept = _tars(plan, chosen, folder, on_rows)
    if plan.form == "wids":
        folder.write(WIDS_INDEX, wids_index(chosen, folder.names()))
    if plan.form == "energon":
        write_energon(chosen, folder)
    return _exported(chosen, folder.url, len(chosen.files), kept, sum(folder.names().values()))


def _shards(plan: ExportPlan, chosen: SetExport, folder: Folder, on_rows: OnRows) -> Exported:
    results = write_subset(
        chosen, folder, plan.where, plan.workers, lambda result: on_rows(result.entry.rows)
    )
    size = sum(result.entry.tar_bytes + result.entry.arrow_bytes for result in results)
    kept = sum(result.kept for result in results)
    return _exported(chosen, folder.url, len(results), kept, size)


def _parquet(chosen: SetExport, out: Folder, on_rows: OnRows) -> Exported:
    name = parquet_name(chosen)
    kept = name in out.names() and _ends_with(_PARQUET_END, out, name)
    if kept:
        on_rows(chosen.rows)
    else:
        write_parquet(chosen, out, on_rows)
    return _exported(chosen, f"{out.url}/{name}", 1, int(kept), out.names()[name])


def _tars(plan: ExportPlan, chosen: SetExport, folder: Folder, on_rows: OnRows) -> int:
    """Write the tars that do not exist; returns how many existed."""
    there = folder.names()
    tars = [f"{chosen.stem(index)}.tar" for index in range(len(chosen.files))]
    missing = [
        index
        for index, name in enumerate(tars)
        if name not in there or not _ends_with(_TAR_END, folder, name)
    ]
    on_rows(chosen.rows - sum(chosen.rows_of(index) for index in missing))
    pool = ThreadPoolExecutor(plan.workers or available_cores())
    try:
        futures = {pool.submit(write_tar, chosen, index, folder): index for index in missing}
        for future in as_completed(futures):
            future.result()
            on_rows(chosen.rows_of(futures[future]))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return len(chosen.files) - len(missing)


def _ends_with(mark: bytes, folder: Folder, name: str) -> bool:
    """Whether a file of an earlier run was not cut off; one in an object store never is."""
    if folder.local is None:
        return True
    with folder.open(name) as file:
        file.seek(max(0, file.size() - len(mark)))
        return bytes(file.read()) == mark


def _exported(chosen: SetExport, out: str, files: int, kept: int, size: int) -> Exported:
    return Exported(
        dataset=chosen.dataset,
        out=out,
        rows=chosen.rows,
        of_rows=chosen.manifest.rows,
        files=files,
        kept=kept,
        bytes=size,
    )
