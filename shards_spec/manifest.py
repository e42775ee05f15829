"""The manifest of a finished data set: what was built, from what, and every file's hash.

It is published last, so a folder without one is not finished. It holds no time and no path, so
the same input gives the same bytes.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shards_spec.errors import FormatError, ShardError, UsageError
from shards_spec.fields import schema_hash
from shards_spec.geometry import Envelope
from shards_spec.layout import MANIFEST, check_dataset_name, is_of_a_build
from shards_spec.storage import Folder

FORMAT = "refit-shard"
FORMAT_VERSION = 2
MAX_MANIFEST_BYTES = 256 << 20
# As many as the eight digits of a key number; a loader's order of them fits any memory.
MAX_ROWS = 10**8
_MAX_NUMBER = 2**63 - 1
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard: its file names are ``name`` + ``.tar`` and ``.arrow``."""

    name: str
    rows: int
    tar_bytes: int
    tar_sha256: str
    arrow_bytes: int
    arrow_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """See ``docs/format.md`` for the meaning of each key."""

    dataset: str
    plan_hash: str
    schema_hash: str
    extrinsics: bool
    envelope: Envelope
    box_px: int
    quality: int
    restart_interval: int
    seed: int
    source_sha256: str
    source_rows: int
    rows: int
    frames: int
    quarantined: Mapping[str, int]
    imgname_bytes: int
    shards: tuple[ShardEntry, ...]

    def to_json(self) -> bytes:
        """The manifest's bytes; keys sorted, one line a shard's key."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
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


def _check_version(content: Any, where: str) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{where}: not a {FORMAT} manifest")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{where}: format_version must be {FORMAT_VERSION}, got {version!r:.20}; "
            "use the refit-shard version that built these shards, or build them again"
        )


def _check_agreement(manifest: Manifest, where: str) -> None:
    """What a writer never writes is damage."""
    try:
        check_dataset_name(manifest.dataset)
    except UsageError as error:
        raise ShardError(f"{where}: {error}; the file is damaged") from error
    envelope, names = manifest.envelope, {entry.name for entry in manifest.shards}
    wrong = {
        "'rows' is not the sum over the shards": manifest.rows
        != sum(entry.rows for entry in manifest.shards),
        "'source_rows' is not 'rows' and 'quarantined' together": manifest.source_rows
        != manifest.rows + sum(manifest.quarantined.values()),
        f"'rows' is not 1 to {MAX_ROWS}": not 1 <= manifest.rows <= MAX_ROWS,
        "'imgname_bytes' is not 1 to 4096": not 1 <= manifest.imgname_bytes <= 4096,
        "two shards have one name": len(names) != len(manifest.shards),
        "'box_px' and 'quality' must be positive": min(manifest.box_px, manifest.quality) < 1,
        "'envelope' holds no usable numbers": not (
            0 < envelope.scale < math.inf and 0 <= envelope.margin < math.inf
        ),
    }
    for what, found in wrong.items():
        if found:
            raise ShardError(f"{where}: {what}; the file is damaged")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        FormatError: another format version, or other columns than this program's.
        ShardError: the file is damaged.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{where}: not JSON ({error})") from error
    _check_version(content, where)
    envelope = _take(content, "envelope", dict, where)
    quarantined = _take(content, "quarantined", dict, where)
    manifest = Manifest(
        **{
            key: _take(content, key, str, where)
            for key in ("dataset", "plan_hash", "schema_hash", "source_sha256")
        },
        **{
            key: _take(content, key, int, where)
            for key in (
                "box_px",
                "quality",
                "restart_interval",
                "seed",
                "source_rows",
                "rows",
                "frames",
            )
        },
        imgname_bytes=_take(content, "imgname_bytes", int, where),
        extrinsics=_take(content, "extrinsics", bool, where),
        envelope=Envelope(
            scale=_take(envelope, "scale", float, where),
            rotation=_take(envelope, "rotation", bool, where),
            margin=_take(envelope, "margin", float, where),
        ),
        quarantined={key: _take(quarantined, key, int, where) for key in quarantined},
        shards=tuple(_parse_entry(entry, where) for entry in _take(content, "shards", list, where)),
    )
    if manifest.schema_hash != schema_hash(extrinsics=manifest.extrinsics):
        raise FormatError(
            f"{where}: these shards have other columns than this version of refit-shard reads; "
            "use the version that built them, or build them again"
        )
    _check_agreement(manifest, where)
    return manifest


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a finished data set.

    Raises:
        ShardError: it is missing (the build is not finished) or damaged.
        FormatError: it is of another version.
    """
    where = f"{folder.url}/{MANIFEST}"
    names = folder.names()
    if MANIFEST not in names:
        begun = any(map(is_of_a_build, names))
        state = "its build is not finished: run the build again" if begun else "no shards there"
        raise ShardError(f"{where}: missing; {state}")
    return parse_manifest(folder.read(MANIFEST, limit=MAX_MANIFEST_BYTES), where)
