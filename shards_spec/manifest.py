"""The manifest of a finished dataset: what was built, from what, and every file's hash.

The manifest is published last, so a build in a folder without one is not finished. It contains no
time and no path, so the same input gives the same bytes.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from refit_shard.shards_spec.columns import columns_of, parse_columns
from refit_shard.shards_spec.errors import FormatError, ShardError, UsageError
from refit_shard.shards_spec.fields import Field, has_extrinsics, own_fields
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.names import MANIFEST, check_dataset_name, is_of_a_build
from refit_shard.shards_spec.storage.folder import Folder

FORMAT = "refit-shard"
FORMAT_VERSION = 3
MAX_MANIFEST_BYTES = 256 << 20
# As many rows as the eight digits of a key can number. A loader's permutation of them fits in
# memory.
MAX_ROWS = 10**8
_MAX_NUMBER = 2**63 - 1
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard. Its files are ``name`` + ``.tar`` and ``name`` + ``.arrow``."""

    name: str
    rows: int
    tar_bytes: int
    tar_sha256: str
    arrow_bytes: int
    arrow_sha256: str


def plan_hash(plan: Mapping[str, Any]) -> str:
    """SHA-256 of a plan: everything that decides a dataset's rows, labels and pixels."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``; see ``docs/how/format.md`` for the meaning of each key.

    ``left_out``: runs (begin, end) of source rows that were left out on purpose, end exclusive.
    """

    dataset: str
    plan: Mapping[str, Any]
    generation: int
    fields: tuple[Field, ...]
    envelope: Envelope
    box_px: int
    quality: int
    restart_interval: int
    seed: int
    source_sha256: str
    source_rows: int
    left_out: tuple[tuple[int, int], ...]
    rows: int
    frames: int
    quarantined: Mapping[str, int]
    warned: Mapping[str, int]
    shards: tuple[ShardEntry, ...]

    @property
    def plan_hash(self) -> str:
        """SHA-256 of the plan. The index of each shard contains it too."""
        return plan_hash(self.plan)

    @property
    def extrinsics(self) -> bool:
        """True if the rows have camera extrinsics."""
        return has_extrinsics(self.fields)

    @property
    def own(self) -> tuple[Field, ...]:
        """The own labels of the dataset."""
        return own_fields(self.fields)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the content of the shards, independent of their files' names."""
        content = [self.plan_hash, *([entry.rows, entry.tar_sha256] for entry in self.shards)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def images_hash(self) -> str:
        """SHA-256 of what decides the rows, their order and their images. It does not depend on own
        labels, so it stays the same if labels are added.
        """
        plan = {key: value for key, value in self.plan.items() if key not in ("columns", "labels")}
        content = [plan_hash(plan), dict(self.quarantined), [entry.rows for entry in self.shards]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def left_out_rows(self) -> int:
        """The number of source rows that were left out on purpose."""
        return sum(end - begin for begin, end in self.left_out)

    def to_json(self) -> bytes:
        """The manifest as JSON with sorted keys."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **asdict(self),
            "columns": columns_of(self.fields),
            "plan_hash": self.plan_hash,
        }
        del content["fields"]
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _take(content: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value: Any = content.get(key)
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value <= _MAX_NUMBER):
        raise ShardError(
            f"{where}: {key!r} must be {kind.__name__}, got {value!r:.60}; the file is damaged"
        )
    return value


def _parse_entry(content: Any, where: str) -> ShardEntry:
    if not isinstance(content, dict):
        raise ShardError(f"{where}: 'shards' must hold objects; the file is damaged")
    name = _take(content, "name", str, where)
    if not _PLAIN_NAME.fullmatch(name):
        raise ShardError(f"{where}: shard name {name!r:.60} is not a plain file name")
    return ShardEntry(
        name=name,
        rows=_take(content, "rows", int, where),
        tar_bytes=_take(content, "tar_bytes", int, where),
        tar_sha256=_take(content, "tar_sha256", str, where),
        arrow_bytes=_take(content, "arrow_bytes", int, where),
        arrow_sha256=_take(content, "arrow_sha256", str, where),
    )


def is_manifest(data: bytes) -> bool:
    """True if these are the bytes of a manifest of shards, of any version."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _check_version(content: Any, where: str) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{where}: not a {FORMAT} manifest")
    version = content.get("format_version")
    if type(version) is int and version == FORMAT_VERSION:
        return
    older = type(version) is int and version < FORMAT_VERSION
    what = (
        "an older refit-shard built these shards: build them again with --overwrite (they stay "
        "until the new ones are complete), or read them with the version that built them"
        if older
        else "upgrade refit-shard to read these shards"
    )
    raise FormatError(
        f"{where}: format_version must be {FORMAT_VERSION}, got {version!r:.20}; {what}"
    )


def _check_agreement(manifest: Manifest, where: str) -> None:
    """Check that the values agree with each other, as in every manifest that a build writes."""
    try:
        check_dataset_name(manifest.dataset)
    except UsageError as error:
        raise ShardError(f"{where}: {error}; the file is damaged") from error
    envelope, names = manifest.envelope, {entry.name for entry in manifest.shards}
    runs = [0, *(place for run in manifest.left_out for place in run), manifest.source_rows]
    counted = manifest.rows + sum(manifest.quarantined.values()) + manifest.left_out_rows
    wrong = {
        "'rows' is not the sum over the shards": manifest.rows
        != sum(entry.rows for entry in manifest.shards),
        "'source_rows' is not 'rows', 'quarantined' and 'left_out' together": manifest.source_rows
        != counted,
        "'left_out' does not hold runs of rows in order": any(
            begin > end for begin, end in pairwise(runs)
        ),
        f"'rows' is not 1 to {MAX_ROWS}": not 1 <= manifest.rows <= MAX_ROWS,
        "two shards have one name": len(names) != len(manifest.shards),
        "'box_px' and 'quality' must be positive": min(manifest.box_px, manifest.quality) < 1,
        "'envelope' does not hold usable numbers": not (
            0 < envelope.scale < math.inf and 0 <= envelope.margin < math.inf
        ),
    }
    stated = {
        "dataset": manifest.dataset,
        "envelope": asdict(envelope),
        "box_px": manifest.box_px,
        "quality": manifest.quality,
        "seed": manifest.seed,
        "source_sha256": manifest.source_sha256,
        "columns": columns_of(manifest.fields),
    }
    for key, value in stated.items():
        wrong[f"{key!r} is not that of 'plan'"] = manifest.plan.get(key, value) != value
    for what, found in wrong.items():
        if found:
            raise ShardError(f"{where}: {what}; the file is damaged")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in the bytes of a file, checked. ``where``: the file, for errors.

    Raises:
        FormatError: another format version, or other columns than this program reads.
        ShardError: the file is damaged.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{where}: not JSON ({error})") from error
    _check_version(content, where)
    envelope = _take(content, "envelope", dict, where)
    manifest = Manifest(
        **{key: _take(content, key, str, where) for key in ("dataset", "source_sha256")},
        **{
            key: _take(content, key, int, where)
            for key in (
                *("generation", "box_px", "quality", "restart_interval", "seed"),
                *("source_rows", "rows", "frames"),
            )
        },
        quarantined=_take_counts(content, "quarantined", where),
        warned=_take_counts(content, "warned", where),
        plan=_take(content, "plan", dict, where),
        fields=parse_columns(_take(content, "columns", list, where), where),
        envelope=Envelope(
            scale=_take(envelope, "scale", float, where),
            rotation=_take(envelope, "rotation", bool, where),
            margin=_take(envelope, "margin", float, where),
        ),
        left_out=_parse_runs(_take(content, "left_out", list, where), where),
        shards=tuple(_parse_entry(entry, where) for entry in _take(content, "shards", list, where)),
    )
    if manifest.plan_hash != _take(content, "plan_hash", str, where):
        raise ShardError(f"{where}: 'plan_hash' is not that of 'plan'; the file is damaged")
    _check_agreement(manifest, where)
    return manifest


def _take_counts(content: Mapping[str, Any], key: str, where: str) -> dict[str, int]:
    counts = _take(content, key, dict, where)
    return {name: _take(counts, name, int, where) for name in counts}


def _parse_runs(content: Sequence[Any], where: str) -> tuple[tuple[int, int], ...]:
    for run in content:
        if not (
            isinstance(run, list)
            and len(run) == 2
            and all(type(one) is int and 0 <= one <= _MAX_NUMBER for one in run)
        ):
            raise ShardError(f"{where}: 'left_out' must hold [begin, end]; the file is damaged")
    return tuple((begin, end) for begin, end in content)


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a finished dataset.

    Raises:
        ShardError: the manifest is missing (the build is not finished) or damaged.
        FormatError: the manifest has another format version.
    """
    where = f"{folder.url}/{MANIFEST}"
    names = folder.names()
    if MANIFEST not in names:
        begun = any(map(is_of_a_build, names))
        state = "its build is not finished: run the build again" if begun else "no shards there"
        raise ShardError(f"{where}: missing; {state}")
    return parse_manifest(folder.read(MANIFEST, limit=MAX_MANIFEST_BYTES), where)
