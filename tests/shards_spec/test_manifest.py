"""A manifest that nobody vouches for: it is read, or refused with our own error."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.shards_spec.columns import columns_of
from refit_shard.shards_spec.errors import FormatError, RefitShardError, ShardError
from refit_shard.shards_spec.fields import Field, standard_fields
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.manifest import Manifest, ShardEntry, parse_manifest
from tests.searches import examples


def entry(name: str, rows: int) -> ShardEntry:
    """One shard."""
    return ShardEntry(
        name=name, rows=rows, tar_bytes=9, tar_sha256="a", arrow_bytes=8, arrow_sha256="b"
    )


STANDARD = standard_fields(extrinsics=False, key_bytes=12, imgname_bytes=12)
OWN = (
    Field(name="contact", dtype="float32", shape=(24,), doc="own label"),
    Field(name="action", dtype="string", width=9, doc="own label"),
)
FIELDS = (*STANDARD[:-1], *OWN, STANDARD[-1])
MANIFEST = Manifest(
    dataset="own",
    plan={"seed": 0, "columns": columns_of(FIELDS), "source_sha256": "s"},
    generation=0,
    fields=FIELDS,
    envelope=Envelope(),
    box_px=256,
    quality=90,
    restart_interval=1,
    seed=0,
    source_sha256="s",
    source_rows=12,
    left_out=((0, 2), (9, 12)),
    rows=5,
    frames=4,
    quarantined={"missing": 2},
    warned={"damaged header": 1},
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
        (("left_out", 0), [0, 3]),
        (("left_out",), [[9, 12], [0, 2]]),
        (("left_out",), [[0, 2], [1, 4]]),
        (("left_out",), [[0, 2, 9]]),
        (("left_out", 0, 0), -1),
        (("generation",), -1),
        (("plan", "seed"), 1),
        (("plan_hash",), "0"),
        (("columns", 1, "bytes"), 10**15),
        (("columns", 1, "bytes"), 0),
        (("columns", -2, "name"), "a b"),
        (("columns", -2, "name"), "contact"),
        (("columns", -3, "dtype"), "object"),
        (("columns", -3, "shape"), [10**9]),
        (("columns", -3, "shape"), [0]),
        (("columns", -3, "shape"), [1000, 1000]),
    ],
)
def test_values_that_contradict_or_lead_astray_are_refused(
    path: tuple[Any, ...], value: Any
) -> None:
    with pytest.raises(ShardError, match=r"^here: "):
        parse_manifest(json.dumps(replaced(path, value)).encode(), "here")


@pytest.mark.parametrize(
    ("version", "what"),
    [
        *((old, "older refit-shard built these shards: build them again") for old in (-1, 0, 1, 2)),
        *((new, "upgrade refit-shard") for new in (4, "3", 3.0, None, True, 10**30)),
    ],
)
def test_another_version_says_what_to_do(version: object, what: str) -> None:
    with pytest.raises(FormatError, match=rf"must be 3, got .*{what}"):
        parse_manifest(json.dumps(replaced(("format_version",), version)).encode(), "here")


def columns() -> list[Any]:
    """The columns of the whole manifest."""
    return list(CONTENT["columns"])


@pytest.mark.parametrize(
    "changed",
    [
        columns()[1:],
        [columns()[1], columns()[0], *columns()[2:]],
        [*columns()[:-1]],
        [*columns()[:-3], columns()[-1], *columns()[-3:-1]],
        [*columns(), columns()[-1]],
        [{**columns()[0], "name": "scale", "dtype": "float32"}, *columns()[1:]],
    ],
    ids=["missing", "moved", "no checksum", "own last", "twice", "retyped"],
)
def test_other_columns_are_another_format(changed: list[Any]) -> None:
    with pytest.raises(RefitShardError, match=r"^here: .*column"):
        parse_manifest(json.dumps({**CONTENT, "columns": changed}).encode(), "here")


def test_own_columns_stand_between_the_standard_ones_and_the_checksum() -> None:
    read = parse_manifest(json.dumps(CONTENT).encode(), "here")
    assert [field.name for field in read.fields][-3:] == ["contact", "action", "record_crc32c"]
    assert read.fields[-3].shape == (24,)
    assert read.fields[-2].width == 9


def test_the_content_s_hash_is_of_what_the_shards_hold_and_not_of_their_names() -> None:
    def changed(**entries: Any) -> str:
        first, second = MANIFEST.shards
        return replace(MANIFEST, shards=(replace(first, **entries), second)).content_hash

    assert changed(name="own-g1-000000", arrow_sha256="c", arrow_bytes=1) == MANIFEST.content_hash
    assert replace(MANIFEST, generation=3).content_hash == MANIFEST.content_hash
    assert changed(tar_sha256="c") != MANIFEST.content_hash
    assert replace(MANIFEST, plan={"seed": 1}).content_hash != MANIFEST.content_hash


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ShardError, match=r"^here: "):
        parse_manifest(data, "here")
