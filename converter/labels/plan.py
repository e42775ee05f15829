"""Plans ``add-labels``: which labels a finished dataset gets, and which row of the npz belongs to
which of its rows.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.keep import Keep, Kept, check_columns, read_kept
from refit_shard.converter.annotations.npz import Npz
from refit_shard.shards_spec.columns import columns_of
from refit_shard.shards_spec.errors import ShardError, SourceError, UsageError
from refit_shard.shards_spec.fields import Field, with_own
from refit_shard.shards_spec.manifest import Manifest, plan_hash
from refit_shard.shards_spec.reader import ShardSet, open_index
from refit_shard.shards_spec.storage.paths import location
from refit_shard.shards_spec.values import hold, whole

SOURCE_ROW = "source_row"


@dataclass(frozen=True, kw_only=True)
class LabelsRequest:
    """The labels to add.

    Args:
        shards: path or URL of the finished dataset.
        npz: path or URL of the file with the labels.
        keep: the labels.
        workers: number of threads, None for one a core.

    Raises:
        UsageError: a value is out of its bounds.
    """

    shards: str
    npz: str
    keep: tuple[Keep, ...]
    workers: int | None = None

    def __post_init__(self) -> None:
        hold(self, shards=location(self.shards, "SET"), npz=location(self.npz, "FILE.npz"))
        if not self.keep:
            raise UsageError("--keep: name the labels to add")
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 1, 4096))


@dataclass(frozen=True, kw_only=True)
class LabelsPlan:
    """Which row gets which labels.

    ``existing``: manifest of the existing shards. ``kept``: the new labels, by row of the npz.
    ``places``: for each source row its row of the npz, or -1. ``fields``: columns of the new
    shards. ``content``: everything that decides their bytes. ``joined_by``: how rows were matched,
    for people. ``done``: True if the shards have the labels already.
    """

    request: LabelsRequest
    existing: Manifest
    kept: Kept
    places: NDArray[np.int64]
    fields: tuple[Field, ...]
    content: dict[str, Any]
    joined_by: str
    done: bool

    @property
    def plan_hash(self) -> str:
        """The plan's hash of the new shards."""
        return plan_hash(self.content)


def plan_labels(request: LabelsRequest) -> LabelsPlan:
    """Read the labels and match them to the dataset's rows. Nothing is written.

    Raises:
        SourceError: the npz cannot be used, or belongs to other rows.
        UsageError: the dataset has labels with these names already.
        ShardError: the dataset is not finished, or damaged.
    """
    data_set = ShardSet.open(request.shards)
    manifest = data_set.manifest
    with closing(Npz(request.npz)) as npz:
        sha256 = npz.hash_beside()
        total = _rows_of(npz, request.keep)
        places, joined_by = _join(npz, total, manifest.source_rows)
        kept = read_kept(npz, request.keep, total, total)
        names = npz.read("imgname") if "imgname" in npz.entries else None
        if names is not None and names.shape != (total,):
            raise SourceError(
                f"{npz.path}: 'imgname' must have {total} rows, got the shape {names.shape}"
            )
        names_added = [field.name for field in kept.fields]
        added = {"columns": names_added, "source_sha256": sha256()}
    earlier = manifest.plan.get("labels", [])
    if not isinstance(earlier, list):
        raise ShardError(f"{request.shards}: damaged: 'labels' of the plan is not a list")
    done = added in earlier and set(kept.fields) <= set(manifest.own)
    if not done:
        _check_new(request, manifest, kept.fields)
    check_same_rows(data_set, request.npz, places, names)
    labels = earlier if done else [*earlier, added]
    fields = manifest.fields if done else with_own(manifest.fields, kept.fields)
    return LabelsPlan(
        request=request,
        existing=manifest,
        kept=kept,
        places=places,
        fields=fields,
        content={**manifest.plan, "columns": columns_of(fields), "labels": labels},
        joined_by=joined_by,
        done=done,
    )


def _rows_of(npz: Npz, keep: tuple[Keep, ...]) -> int:
    """The number of rows of the npz: those of source_row, of imgname, or of the first label."""
    for key in (SOURCE_ROW, "imgname", *(one.name for one in keep)):
        entry = npz.entries.get(key)
        if entry is not None and entry.shape:
            return int(entry.shape[0])
    raise SourceError(
        f"{npz.path}: has none of the labels; found: {', '.join(npz.entries) or 'none'}"
    )


def _join(npz: Npz, total: int, source_rows: int) -> tuple[NDArray[np.int64], str]:
    """For each source row of the dataset its row of the npz, or -1; and how the rows were
    matched.
    """
    if SOURCE_ROW not in npz.entries:
        if total != source_rows:
            raise SourceError(
                f"{npz.path}: has {total} rows, the dataset was built from an npz with "
                f"{source_rows}: give one with the same rows, or with an array {SOURCE_ROW!r} that "
                "states each row's number"
            )
        by = "row and imgname" if "imgname" in npz.entries else "row alone"
        return np.arange(total), by
    rows = npz.read(SOURCE_ROW)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise SourceError(
            f"{npz.path}: {SOURCE_ROW!r} must be whole numbers of shape (N,), got {rows.dtype} "
            f"of shape {rows.shape}"
        )
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < source_rows:
        raise SourceError(f"{npz.path}: {SOURCE_ROW!r} must hold 0 to {source_rows - 1}")
    places = np.full(source_rows, -1)
    places[rows] = np.arange(total)
    if np.count_nonzero(places >= 0) != total:
        raise SourceError(f"{npz.path}: {SOURCE_ROW!r} holds a row twice")
    return places, SOURCE_ROW


def _check_new(request: LabelsRequest, manifest: Manifest, own: tuple[Field, ...]) -> None:
    known = {field.name for field in manifest.fields}
    again = next((field.name for field in own if field.name in known), None)
    if again is not None:
        raise UsageError(
            f"{request.shards}: has the label {again!r} already; to replace it, build the dataset "
            "again with --keep, or add the label under another name"
        )
    check_columns(with_own(manifest.fields, own), request.npz)


def check_same_rows(
    data_set: ShardSet, npz: str, places: NDArray[np.int64], names: NDArray[Any] | None
) -> None:
    """Check that the npz has every row of the dataset, with the same frame's name.

    ``places``: for each source row its row of the npz, or -1. ``names``: the npz's imgname, or
    None.

    Raises:
        SourceError: a row is missing or differs; the error names the first one.
        ShardError: an index is missing or damaged.
    """
    for entry in data_set.manifest.shards:
        index = open_index(data_set.folder, entry, data_set.manifest.fields)
        rows = index.column(SOURCE_ROW).to_numpy()
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(places):
            raise SourceError(
                f"{npz}: {entry.name} holds source rows that the dataset's npz did not have"
            )
        taken = places[rows]
        if (taken < 0).any():
            raise SourceError(
                f"{npz}: has no row for {np.count_nonzero(taken < 0)} of the {len(rows)} rows of "
                f"{entry.name}, the first with source_row {rows[taken < 0][0]}"
            )
        if names is None:
            continue
        for row, name, other in zip(
            rows.tolist(), index.column("imgname").to_pylist(), names[taken].tolist(), strict=True
        ):
            if name != (other.decode(errors="replace") if isinstance(other, bytes) else other):
                raise SourceError(
                    f"{npz}: belongs to other rows: imgname of source row {row} is {other!r:.80}, "
                    f"in the shards {name!r:.80}"
                )
