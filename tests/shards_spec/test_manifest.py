"""A manifest that nobody vouches for: it is read, or refused with our own error."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards_spec.errors import FormatError, RefitShardError, ShardError
from shards_spec.fields import schema_hash
from shards_spec.geometry import Envelope
from shards_spec.manifest import Manifest, ShardEntry, parse_manifest
from tests.searches import examples


def entry(name: str, rows: int) -> ShardEntry:
    """One shard."""
    return ShardEntry(
        name=name, rows=rows, tar_bytes=9, tar_sha256="a", arrow_bytes=8, arrow_sha256="b"
    )


MANIFEST = Manifest(
    dataset="own",
    plan_hash="p",
    schema_hash=schema_hash(extrinsics=False),
    extrinsics=False,
    envelope=Envelope(),
    box_px=256,
    quality=90,
    restart_interval=1,
    seed=0,
    source_sha256="s",
    source_rows=7,
    rows=5,
    frames=4,
    quarantined={"missing": 2},
    imgname_bytes=12,
    shards=(entry("own-000000", 3), entry("own-000001", 2)),
)
CONTENT: dict[str, Any] = json.loads(MANIFEST.to_json())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def paths(content: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a document is."""
    found = [here] if here else []
    if isinstance(content, dict):
        children = list(content.items())
    else:
        children = list(enumerate(content)) if isinstance(content, list) else []
    for key, value in children:
        found += paths(value, (*here, key))
    return found


def replaced(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The document with one value changed."""
    content: dict[str, Any] = json.loads(MANIFEST.to_json())
    holder: Any = content
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return content


def manifest_or_error(data: bytes) -> Manifest | RefitShardError:
    """A manifest, or an error of ours that says where in one line."""
    try:
        return parse_manifest(data, "here")
    except RefitShardError as error:
        found = error
    assert str(found).startswith("here: ")
    assert "\n" not in str(found)
    return found


def test_what_is_written_is_read() -> None:
    assert parse_manifest(MANIFEST.to_json(), "here") == MANIFEST


@settings(max_examples=examples(400))
@given(st.sampled_from(paths(CONTENT)), JSON)
def test_any_other_value_is_read_or_our_error(path: tuple[Any, ...], value: Any) -> None:
    found = manifest_or_error(json.dumps(replaced(path, value)).encode())
    if isinstance(found, Manifest):
        assert parse_manifest(found.to_json(), "here") == found


@settings(max_examples=examples(200))
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.binary(max_size=4))
def test_any_spliced_bytes_are_read_or_our_error(at: int, length: int, new: bytes) -> None:
    data = bytearray(MANIFEST.to_json())
    at %= len(data)
    data[at : at + length % 20] = new
    manifest_or_error(bytes(data))


@pytest.mark.parametrize("path", paths(CONTENT), ids=lambda path: ".".join(map(str, path)))
def test_every_key_must_be_there_and_of_its_kind(path: tuple[Any, ...]) -> None:
    with pytest.raises(RefitShardError, match=r"^here: "):
        parse_manifest(json.dumps(replaced(path, None)).encode(), "here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows",), 6),
        (("shards", 0, "rows"), 4),
        (("shards", 0, "rows"), -3),
        (("shards", 0, "name"), "../own-000000"),
        (("shards", 0, "name"), "/etc/passwd"),
        (("shards", 0, "name"), ""),
        (("shards", 0, "name"), ".own-000000"),
        (("shards", 0, "name"), "own\0-000000"),
        (("shards", 0, "name"), "own-000001"),
        (("box_px",), 0),
        (("box_px",), True),
        (("envelope", "scale"), float("nan")),
        (("envelope", "scale"), -1.0),
        (("envelope", "margin"), float("inf")),
        (("quarantined", "missing"), -1),
        (("source_rows",), 10**15),
        (("imgname_bytes",), 10**15),
    ],
)
def test_values_that_contradict_or_lead_astray_are_refused(
    path: tuple[Any, ...], value: Any
) -> None:
    with pytest.raises(ShardError, match=r"^here: "):
        parse_manifest(json.dumps(replaced(path, value)).encode(), "here")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, 10**30])
def test_another_version_says_what_to_do(version: object) -> None:
    with pytest.raises(FormatError, match=r"must be 2, got .*; use the refit-shard version that"):
        parse_manifest(json.dumps(replaced(("format_version",), version)).encode(), "here")


def test_other_columns_are_another_format() -> None:
    for changed in (("schema_hash", "0"), ("extrinsics", True)):
        with pytest.raises(FormatError, match="other columns"):
            parse_manifest(json.dumps({**CONTENT, changed[0]: changed[1]}).encode(), "here")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ShardError, match=r"^here: "):
        parse_manifest(data, "here")
