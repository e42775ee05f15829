"""Rows chosen by a text, against conditions evaluated row by row in Python on what went in."""

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard import ShardSet
from refit_shard.rows import counts, find_sets, named, rows, selected
from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.where import MAX_TEXT, Where
from tests.searches import examples
from tests.small import Own, own, quarantine, refit

ROWS = 14
# Places of joints in the npz's two arrays, as SPIN lists them.
OPENPOSE_LEFT_HEEL, OPENPOSE_LEFT_ANKLE, SPIN_LEFT_ANKLE, SPIN_PELVIS = 21, 14, 5, 14


@dataclass(frozen=True)
class Built:
    """Two sets in one folder: ``a`` with labels of its own and a bad row, ``b`` without."""

    folder: Path
    a: Own
    b: Own

    @property
    def sets(self) -> list[Path]:
        """Both folders."""
        return [self.folder / "a", self.folder / "b"]


def _build(tree: Own, folder: Path, name: str, *args: object) -> None:
    place = ["--npz", tree.npz, "--root", tree.root, "--name", name, "--out", folder]
    how = ["--workers", 0, "--max-bad", 0.9, "--samples-per-shard", 4]
    result = refit("build", *place, *how, *args)
    assert result.code == 0, result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Some of ``a``'s confidences are 0, one weight is NaN, one scale is none."""
    place = tmp_path_factory.mktemp("rows")
    a, b = own(place / "a", rows=ROWS), own(place / "b", rows=6)
    rng = np.random.default_rng(3)
    openpose, scale = a.columns["openpose"].copy(), a.columns["scale"].copy()
    openpose[::3, :, 2] = 0
    scale[4] = 0
    weight = np.linspace(0, 1, ROWS).astype(np.float32)
    weight[5] = np.nan
    a.save(
        openpose=openpose,
        scale=scale,
        weight=weight,
        half=rng.random((ROWS, 2)).astype(np.float16),
        tag=np.array([f"it's {row % 3}" for row in range(ROWS)]),
    )
    _build(a, place / "shards", "a", "--keep", "weight,half,tag")
    _build(b, place / "shards", "b")
    return Built(place / "shards", a, b)


def keys(built: Built, where: str | None) -> list[str]:
    """The keys of the rows that meet a condition."""
    found: list[str] = rows(built.sets, where, ["key"]).read_all()["key"].to_pylist()
    return found


def expected(built: Built, meets: Callable[[dict[str, Any]], bool | None]) -> set[str]:
    """The keys of the rows of both npz that meet a condition; None is a missing value."""
    found = set()
    for name, tree in (("a", built.a), ("b", built.b)):
        for row in range(len(tree.names)):
            label = {key: values[row] for key, values in tree.columns.items()}
            label |= {"source_row": row, "dataset": name, "imgname": tree.names[row]}
            if label["scale"] > 0 and meets(label):
                found.add(f"{name}-{row:08d}")
    assert found
    return found


CONDITIONS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("scale > 0.2", lambda row: row["scale"] > 0.2),
    ("scale > 0.2 and dataset == 'b'", lambda row: row["scale"] > 0.2 and row["dataset"] == "b"),
    (
        "not (scale between 0.2 and 0.25)",
        lambda row: not 0.2 <= row["scale"] <= 0.25,
    ),
    ("left_heel.conf > 0", lambda row: row["openpose"][OPENPOSE_LEFT_HEEL, 2] > 0),
    ("op_left_ankle.x < 30", lambda row: row["openpose"][OPENPOSE_LEFT_ANKLE, 0] < 30),
    (
        "left_ankle.y > pelvis.y",
        lambda row: row["part"][SPIN_LEFT_ANKLE, 1] > row["part"][SPIN_PELVIS, 1],
    ),
    ("betas[1] > 0 and betas[10] < 0", lambda row: row["shape"][0] > 0 > row["shape"][9]),
    ("pose[3] < 0", lambda row: row["pose"][2] < 0),
    ("gender = 1", lambda row: row["gender"] == "f"),
    ("imgname like 'a/00%' and source_row < 5", lambda row: row["source_row"] < 5),
    ("key in ('a-00000003', 'b-00000001', 'x')", lambda row: _key(row) in ("a3", "b1")),
    ("has_smpl and has_pose_3d", lambda row: len(row["pose"]) == 72),
    ("weight > 0.5", lambda row: "weight" in row and row["weight"] > 0.5),
    ("weight is null", lambda row: math.isnan(row.get("weight", math.nan))),
    ("tag = 'it''s 2'", lambda row: row.get("tag") == "it's 2"),
    ("half[2] < 0.5", lambda row: "half" in row and row["half"][1] < 0.5),
    (
        "scale / (left_heel.conf - left_heel.conf) > 1 or key = 'a-00000003'",
        lambda row: _key(row) == "a3",
    ),
    (
        "(weight - weight) / (weight - weight) > 1 or scale % 0.0 > 1 or key = 'b-00000001'",
        lambda row: _key(row) == "b1",
    ),
    ("source_row // 0 is null", lambda row: row["scale"] > 0),
    ('"window"[1] >= 0', lambda row: row["scale"] > 0),
    ("dataset = 'a' -- no more", lambda row: row["dataset"] == "a"),
]


def _key(row: dict[str, Any]) -> str:
    return f"{row['dataset']}{row['source_row']}"


@pytest.mark.parametrize(("text", "meets"), CONDITIONS, ids=[text for text, _ in CONDITIONS])
def test_a_text_chooses_the_rows_that_meet_it(
    built: Built, text: str, meets: Callable[[dict[str, Any]], Any]
) -> None:
    found = keys(built, text)
    assert set(found) == expected(built, meets)
    every = keys(built, None)
    assert found == [key for key in every if key in set(found)]  # in the order of the shards
    assert sum(counts([ShardSet.open(one) for one in built.sets], text)) == len(found)
    places = [
        chosen.data_set.shard(chosen.shard).column("key")[row].as_py()
        for chosen in selected(built.sets, text)
        for row in chosen.rows
    ]
    assert places == found


NUMBERS = st.floats(0.1, 0.4).map(lambda one: round(one, 3))
LEAVES = st.one_of(
    st.tuples(st.sampled_from(("scale", "nose.x", "weight")), st.sampled_from("<>"), NUMBERS),
    st.tuples(st.just("source_row"), st.just("<"), st.integers(0, ROWS)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(("and", "or")), inner, inner),
    ),
    max_leaves=8,
)


def said(tree: Any) -> str:
    """A tree of conditions as text."""
    if tree[0] == "not":
        return f"not ({said(tree[1])})"
    if tree[0] in ("and", "or"):
        return f"({said(tree[1])}) {tree[0]} ({said(tree[2])})"
    return " ".join(map(str, tree))


def truth(tree: Any, row: dict[str, Any]) -> bool | None:
    """What it says of a row; None, as in SQL, where that depends on a missing value."""
    if tree[0] == "not":
        inner = truth(tree[1], row)
        return None if inner is None else not inner
    if tree[0] in ("and", "or"):
        both = {truth(tree[1], row), truth(tree[2], row)}
        decides = tree[0] == "or"
        return decides if decides in both else None if None in both else not decides
    name, sign, number = tree
    nose = np.float32(row["part"][19, 0])
    value = float({**row, "nose.x": nose}.get(name, math.nan))
    if math.isnan(value):
        return None
    return bool(value < number if sign == "<" else value > number)


@settings(max_examples=examples(25))
@given(tree=TREES)
def test_any_tree_of_conditions_means_what_sql_says(built: Built, tree: Any) -> None:
    found = set()
    for name, own_set in (("a", built.a), ("b", built.b)):
        for row in range(len(own_set.names)):
            label = {key: values[row] for key, values in own_set.columns.items()}
            label["source_row"] = row
            if label["scale"] > 0 and truth(tree, label):
                found.add(f"{name}-{row:08d}")
    assert set(keys(built, said(tree))) == found


WRONG = [
    ("scal > 1", "no column 'scal' (did you mean 'scale'?); the columns are dataset, shard, key"),
    ('dataset == "xyz"', "(write a text in single quotes: 'xyz')"),
    ("left_heal.conf > 1", "did you mean 'left_heel'?"),
    ("scale >", "is incomplete"),
    ("scale > 1)", "a parenthesis too many"),
    ("scale > 'é' oder 1", "here: scale > 'é' >>> oder 1"),
    ("window[3] > 9", 'here:  >>> window[3] > 9; window is a word of SQL: write "window"'),
    ("SCALE > 1", "no column 'SCALE' (did you mean 'scale'?)"),
    ("scale > 1; drop table x", "here: scale > 1 >>> ; drop table x"),
    ("1) union select (2", "must be a single condition"),
    ("1) limit (1", "must be a single condition"),
    ("1) group by (1", "must be a single condition"),
    ("scale > ?", "must be a single condition"),
    ("scale in (select 1)", "subquery is not allowed in a condition on one row"),
    ("exists(select * from read_csv('/etc/passwd'))", "subquery is not allowed"),
    ("exists(from '/etc/passwd')", "subquery is not allowed"),
    ("sum(scale) over () > 1", "window is not allowed"),
    ("* > 1", "star is not allowed"),
    ("columns('s.*') > 1", "star is not allowed"),
    ("max(scale) > 1", "cannot contain aggregates"),
    ("read_csv('/etc/passwd') = 1", "table function"),
    ("read_text('/etc/passwd') = 'a'", "table function"),
    ("getenv('HOME') = ''", "getenv"),
    ("random() < 0.5", "gives a different result each time"),
    ("isnan(weight)", "write x is null"),
    ("betas[0] > 0", "lists are counted from 1; its last entry is betas[10]"),
    ("scale > 0 and not betas[11] > 0", "counted from 1; its last entry is betas[10]"),
    ("betas[-11] > 0", "counted from 1; its last entry is betas[10]"),
    ("string_split(key, '-')[0] = 'own'", "lists are counted from 1"),
    ("0.1 < scale < 0.3", "ND"),  # DuckDB's own words
    ("(0.1 < scale) < 0.3", "write a < b and b < c"),
    ("imgname > 3", "Cannot compare"),
    ("left_heel.z > 3", 'Could not find key "z"'),
    ("error('x') is null", "a different result"),
    ("", "1 to 20000 characters"),
    ("x" * (MAX_TEXT + 1), "1 to 20000 characters"),
    ("(" * 3000 + "1" + ")" * 3000, "depth"),
    ("+".join(["scale"] * 900) + " > 1", "nested too deeply"),
    ("weight > 1 and WEIGHT > 1", "two of the names WEIGHT, weight differ"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_what_is_no_condition_is_told_in_one_line(built: Built, text: str, line: str) -> None:
    with pytest.raises(UsageError) as told:
        rows(built.sets, text, ["key"]).read_all()
    assert line in str(told.value)
    assert str(told.value).startswith("where: ")
    assert len(str(told.value)) < 1000
    assert "\n" not in str(told.value)


@settings(max_examples=examples(100))
@given(text=st.text(st.sampled_from("scale nose.x>0<'\"()[];-*,+=$?\\é\0and or in"), max_size=40))
def test_no_text_ends_otherwise(text: str) -> None:
    table = pa.table({"scale": pa.array([0.5, 1.0, None])})
    with suppress(UsageError):
        condition = Where(text)
        if set(condition.names) <= {"scale"}:
            condition.places(table)


def test_a_condition_changes_and_reads_nothing(tmp_path: Path) -> None:
    """Also if a part of a query got through, DuckDB would not open a file."""
    import duckdb

    (tmp_path / "x.csv").write_text("a\n1\n")
    condition = Where("scale > 1")
    for query in (
        f"SELECT * FROM read_csv('{tmp_path}/x.csv')",
        f"COPY (SELECT 1) TO '{tmp_path}/y.csv'",
        f"ATTACH '{tmp_path}/z.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(duckdb.Error):
            condition._duck.execute(query)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


# ---------------------------------------------------------------------------------------- columns


def test_columns_are_those_that_are_asked_for(built: Built) -> None:
    names = ["left_heel", "left_heel.conf", "shard", "dataset", "half", "key", "keypoints"]
    table = rows(built.sets, None, names).read_all()
    assert table.schema.names == names
    sources = {"a": built.a.columns, "b": built.b.columns}
    for row in table.to_pylist():
        name, number = row["key"].split("-")
        source = sources[name]
        heel = source["openpose"][int(number), OPENPOSE_LEFT_HEEL].astype(np.float32)
        assert list(row["left_heel"].values()) == heel.tolist()
        assert row["left_heel.conf"] == heel[2]
        assert row["dataset"] == name
        assert row["shard"].startswith(f"{name}-0000")
        half = source["half"][int(number)].tolist() if name == "a" else None
        assert row["half"] == half
    every = rows(built.sets).read_all()
    assert every.num_rows == ROWS - 1 + 6
    assert {"dataset", "shard", "weight", "tag", "pose", "record_crc32c"} <= set(every.schema.names)
    assert every["weight"].null_count == 6


def test_a_column_that_no_set_has_is_refused(built: Built) -> None:
    for columns, line in (
        (["nothing"], "columns: no column 'nothing'; the columns are"),
        (["left_heel.z"], "columns: no column 'left_heel.z' (did you mean 'left_heel'?)"),
        ("scale", "columns: must be a list of names, got 'scale'"),
        (["scale.x"], "no column 'scale.x' (did you mean 'scale'?)"),
        ([], "columns: must name at least one column"),
    ):
        with pytest.raises(UsageError) as told:
            rows(built.sets, None, columns)
        assert line in str(told.value)
    with pytest.raises(UsageError, match="no column 'weight'"):
        rows([built.folder / "b"], "weight > 1")
    wrong: Any
    for wrong in ([], str(built.folder)):
        with pytest.raises(UsageError, match=r"^sets: must"):
            rows(wrong)


def test_a_label_of_another_kind_elsewhere_is_asked_for_alone(built: Built, tmp_path: Path) -> None:
    tree = own(tmp_path / "c")
    tree.save(weight=np.arange(6), pelvis=np.arange(6.0), Tag=np.arange(6), tag=np.arange(6))
    _build(tree, tmp_path / "shards", "c", "--keep", "weight,pelvis,Tag,tag")
    sets = [built.folder / "a", tmp_path / "shards" / "c"]
    with pytest.raises(UsageError, match=r"'weight' is float in .*/a, int64 in .*/c: query one"):
        rows(sets, "weight > 1")
    assert rows(sets, "scale > 0", ["key"]).read_all().num_rows == ROWS - 1 + 6
    with pytest.raises(UsageError, match="two of the names Tag, tag differ only in"):
        rows(sets[1:], "Tag > 1 and tag > 1")
    # A label of one's own comes before a joint of its name.
    found = rows(sets[1:], "pelvis > 3", ["pelvis"]).read_all()["pelvis"].to_pylist()
    assert sorted(found) == [4, 5]
    assert rows(sets, "pelvis > 3 or nose.x > 99", ["pelvis"]).read_all().num_rows == 2


def test_the_quarantine_is_asked_as_rows_are(built: Built) -> None:
    table = rows(built.sets, None, quarantine=True).read_all()
    assert table.schema.names == ["dataset", "source_row", "imgname", "reason", "detail"]
    reasons = {row["source_row"]: row["reason"] for row in table.to_pylist()}
    assert reasons == quarantine(built.folder / "a") == {4: "bad_box"}
    assert rows(built.sets, "reason = 'x'", quarantine=True).read_all().num_rows == 0
    with pytest.raises(UsageError, match="no column 'scale'"):
        rows(built.sets, "scale > 1", quarantine=True)
    with pytest.raises(UsageError, match="no column 'nose'"):
        rows(built.sets, None, ["nose"], quarantine=True)


def test_shards_are_found_by_a_glob_for_arrow_and_the_quarantine_is_not(built: Built) -> None:
    for one in built.sets:
        found = sorted(path.stem for path in one.glob("*.arrow"))
        assert found == [entry.name for entry in ShardSet.open(one).manifest.shards]
        assert (one / "quarantine.feather").is_file()


# -------------------------------------------------------------------------------- where they are


def test_sets_are_found_by_path_and_by_name(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*places: Path | str) -> list[str]:
        return [one.manifest.dataset for one in find_sets(places, shards=str(built.folder))]

    monkeypatch.chdir(tmp_path)
    assert found(built.folder) == ["a", "b"]
    assert found("b", built.folder / "a", str(built.folder)) == ["b", "a"]
    with pytest.raises(ShardError, match="c: no such folder, and no dataset of that name"):
        found("c")
    (tmp_path / "a").mkdir()
    with pytest.raises(ShardError, match="a: no shards there"):
        found("a")


def test_a_row_is_found_by_its_key_its_frame_or_the_end_of_that(built: Built) -> None:
    sets = find_sets([built.folder])

    def found(name: str) -> list[tuple[str, int]]:
        return [
            (chosen.data_set.manifest.dataset, int(one.column("source_row")[row].as_py()))
            for chosen in named(sets, name)
            for one in [chosen.data_set.shard(chosen.shard)]
            for row in chosen.rows
        ]

    assert found("a-00000003") == [("a", 3)]
    assert sorted(found("a/001.jpg")) == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
    assert sorted(found("001.jpg")) == sorted(found("a/001.jpg"))
    assert found("01.jpg") == found("a-1") == found("") == found("\udc80") == []


def test_a_damaged_index_is_told_while_reading(built: Built, tmp_path: Path) -> None:
    place = Path(shutil.copytree(built.folder / "a", tmp_path / "a"))
    index = max(place.glob("*.arrow"))
    index.write_bytes(index.read_bytes()[:-900])
    reader = rows([place], "scale > 0")
    with pytest.raises(ShardError, match="not a readable Arrow file"):
        reader.read_all()
