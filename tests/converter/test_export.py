"""Subsets as whole sets, and what holds of an export in every format."""

import json
import resource
import shutil
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refit_shard import ShardSet, StreamingLoader, StreamOptions
from refit_shard.converter.export.plan import FORMATS, pack
from refit_shard.converter.export.shards import left_out_runs
from refit_shard.converter.frames import decode, encode
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.names import MANIFEST
from refit_shard.shards_spec.writer import METADATA_KEY, arrow_bytes, shard_metadata
from tests.converter.exported import BAD, ROWS, make_set, members
from tests.converter.kills import kill_at
from tests.small import (
    Own,
    error_line,
    hashes,
    index_rows,
    quarantine,
    read_arrow,
    refit,
    refit_process,
    samples_of,
)

EVEN = "source_row % 2 == 0"
WANTED = [row for row in range(ROWS) if row % 2 == 0 and row not in BAD]


def export(tree: Own, form: str, out: Path, *args: object) -> dict[str, Any]:
    """Export the set with success; what ``--json`` says of it."""
    result = refit("export", tree.out, "--format", form, "--out", out, "--json", *args)
    assert result.code == 0, result.err
    (said,) = json.loads(result.out)
    return dict(said)


def test_a_subset_is_a_whole_set_of_the_same_bytes(
    labelled: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for module, name in ((decode, "decode_frame"), (encode, "encode"), (jpeg, "decode")):
            patch.delattr(module, name)
        said = export(labelled, "shards", tmp_path / "out", "--where", EVEN)
    new = tmp_path / "out/own"
    assert (said["rows"], said["of_rows"], said["out"]) == (len(WANTED), ROWS - len(BAD), str(new))
    verified = refit("verify", new)
    assert verified.code == 0, verified.out
    old, kept = members(sorted(labelled.out.glob("*.tar"))), members(sorted(new.glob("*.tar")))
    keys = {f"own-{row:08d}.{ending}" for row in WANTED for ending in ("jpg", "npy")}
    assert kept == {name: old[name] for name in keys}
    assert [sample["source_row"] for sample in samples_of(new)] == WANTED
    assert quarantine(new) == {}
    frames = {row["imgname"] for row in index_rows(new)}
    assert ShardSet.open(new).manifest.frames == len(frames) == 12 - 1


def test_a_subset_says_what_it_was_made_from(labelled: Own, tmp_path: Path) -> None:
    export(labelled, "shards", tmp_path / "out", "--where", EVEN)
    old, new = (ShardSet.open(path).manifest for path in (labelled.out, tmp_path / "out/own"))
    (made_from,) = new.plan["subset"]
    assert made_from["content_hash"] == old.content_hash
    assert (made_from["rows"], made_from["where"]) == (len(WANTED), EVEN)
    assert {**new.plan, "subset": 0} == {**old.plan, "subset": 0}
    assert new.content_hash != old.content_hash
    left_out = [row for begin, end in new.left_out for row in range(begin, end)]
    assert left_out == sorted(set(range(ROWS)) - set(WANTED))
    again = labelled.build("--samples-per-shard", 6, "--out", tmp_path / "out")
    assert again.code == 2
    assert "as a subset by export" in error_line(again)


def test_the_loader_streams_a_subset(labelled: Own, tmp_path: Path) -> None:
    export(labelled, "shards", tmp_path / "out", "--where", EVEN)
    options = StreamOptions(batch_size=len(WANTED), num_workers=0, occluders=None)
    batches = list(StreamingLoader({"own": (str(tmp_path / "out/own"), 1.0)}, options))
    names = {name for batch in batches for name in batch["imgname"]}
    assert names == {f"a/{row // 2:03d}.jpg" for row in WANTED}


def test_a_subset_has_subsets_and_takes_labels(labelled: Own, tmp_path: Path) -> None:
    export(labelled, "shards", tmp_path / "one", "--where", EVEN)
    again = ("--where", "source_row < 9", "--format", "shards", "--out", tmp_path / "two")
    assert refit("export", tmp_path / "one/own", *again).code == 0
    new = tmp_path / "two/own"
    assert [sample["source_row"] for sample in samples_of(new)] == [0, 2, 4, 6, 8]
    assert [one["rows"] for one in ShardSet.open(new).manifest.plan["subset"]] == [11, 5]
    np.savez(tmp_path / "tall.npz", tall=np.arange(ROWS))
    assert refit("add-labels", new, tmp_path / "tall.npz", "--keep", "tall").code == 0
    assert [sample["tall"] for sample in samples_of(new)] == [0, 2, 4, 6, 8]
    assert refit("verify", new).code == 0


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_rows_give_the_same_bytes_and_nothing_more_is_left(
    labelled: Own, tmp_path: Path, form: str
) -> None:
    export(labelled, form, tmp_path / "one", "--where", EVEN, "--workers", 1)
    export(labelled, form, tmp_path / "two", "--where", EVEN, "--workers", 3)
    first = hashes(tmp_path / "one")
    assert hashes(tmp_path / "two") == first
    assert not [name for name in first if name.endswith((".tmp", ".lock"))]
    said = export(labelled, form, tmp_path / "one", "--where", EVEN)
    assert said["kept"] == said["files"] > 0
    assert hashes(tmp_path / "one") == first


def test_each_of_several_sets_has_its_own_folder(labelled: Own, tmp_path: Path) -> None:
    other = make_set(tmp_path)
    shutil.move(other.out, tmp_path / "moved")
    result = refit(
        *("export", labelled.out, tmp_path / "moved", "--format", "json", "--out", tmp_path / "out")
    )
    assert result.code == 2
    assert "two of the datasets are called 'own'" in error_line(result)
    more = (*other.command("--max-bad", 0.9, "--out", tmp_path / "sets"), "--name", "other")
    assert refit(*more).code == 0
    assert labelled.build("--out", tmp_path / "sets", "--samples-per-shard", 6).code == 0
    where = ("--where", "dataset == 'other' and source_row < 3")
    both = ("export", tmp_path / "sets", "--format", "shards", "--out", tmp_path / "both")
    assert refit(*both).code == 0
    assert refit("verify", tmp_path / "both").code == 0
    assert {path.name for path in (tmp_path / "both").glob("[!.]*")} == {"other", "own"}
    one = ("export", tmp_path / "sets", "--format", "json", "--out", tmp_path / "one", *where)
    assert refit(*one).code == 0
    assert [path.name for path in (tmp_path / "one").glob("[!.]*")] == ["other"]


def test_a_dry_run_counts_and_writes_nothing(labelled: Own, tmp_path: Path) -> None:
    said = export(labelled, "json", tmp_path / "out", "--where", EVEN, "--dry-run")
    assert (said["rows"], said["of_rows"]) == (len(WANTED), ROWS - len(BAD))
    whole = export(labelled, "shards", tmp_path / "out", "--dry-run")
    tars = sum(path.stat().st_size for path in labelled.out.glob("*.tar"))
    assert whole["bytes"] == tars
    assert not (tmp_path / "out").exists()
    plain = refit(
        "export", labelled.out, "--format", "json", "--out", tmp_path / "out", "--dry-run"
    )
    assert "own: 22 of 22 rows in 4 files, about" in plain.out


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("begin", "said"),
    [
        ("file", "is not empty and does not hold an export"),
        ("folder", "is not empty and does not hold an export"),
        ("other rows", "holds an export of other rows or in another format"),
        ("other format", "holds an export of other rows or in another format"),
    ],
)
def test_what_it_has_not_written_is_left_alone(
    labelled: Own, tmp_path: Path, form: str, begin: str, said: str
) -> None:
    out = tmp_path / "out"
    if begin == "file":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    elif begin == "folder":
        (out / "own").mkdir(parents=True)
    else:
        other = form if begin == "other rows" else FORMATS[FORMATS.index(form) - 1]
        export(labelled, other, out, *(("--where", EVEN) if begin == "other rows" else ()))
    before = hashes(out)
    result = refit("export", labelled.out, "--format", form, "--out", out)
    assert result.code == 2
    assert said in error_line(result)
    assert hashes(out) == before


@pytest.mark.parametrize("through_a_link", [False, True])
def test_it_does_not_write_into_what_it_exports(
    labelled: Own, tmp_path: Path, through_a_link: bool
) -> None:
    folder = labelled.out
    if through_a_link:
        folder = tmp_path / "link"
        folder.symlink_to(labelled.out)
    before = hashes(labelled.out)
    result = refit("export", labelled.out, "--format", "json", "--out", folder / "exported")
    assert result.code == 2
    assert "is in the folder of own, which is exported" in error_line(result)
    assert hashes(labelled.out) == before


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--where", "source_row > 900"), 2, "no row of these datasets is chosen"),
        (("--where", "nonsense > 1"), 2, "no column 'nonsense'"),
        (("--workers", "0"), 2, "--workers: must be a whole number from 1 to 4096"),
        (("--out", ""), 2, "--out is empty"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    labelled: Own, tmp_path: Path, args: tuple[str, ...], code: int, said: str
) -> None:
    result = refit("export", labelled.out, "--format", "json", "--out", tmp_path / "out", *args)
    assert result.code == code
    assert said in error_line(result)
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    result = refit("export", place, "--format", "json", "--out", tmp_path / "out")
    assert result.code == 1
    assert "no shards there" in error_line(result)


def copy_of(tree: Own, place: Path) -> Path:
    """A copy of the set, to be spoilt."""
    return Path(shutil.copytree(tree.out, place / "copy/own"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ending", [".tar", ".arrow"])
def test_damage_of_a_set_is_not_carried_on(
    labelled: Own, tmp_path: Path, form: str, ending: str
) -> None:
    standing, out = copy_of(labelled, tmp_path), tmp_path / "out"
    path = standing / f"own-000001{ending}"
    whole = path.read_bytes()
    row = next(row for row in index_rows(standing) if row["shard"] == "own-000001")
    inside = row["jpg_offset"] + row["jpg_length"] // 2
    data = bytearray(whole)
    data[inside if ending == ".tar" else data.index(b"a/0", data.index(b"own-0000")) + 2] ^= 1
    path.write_bytes(data)
    result = refit("export", standing, "--format", form, "--out", out)
    if (form, ending) == ("parquet", ".tar"):  # which holds no image
        assert result.code == 0
        return
    assert result.code == 1
    assert "own-000001" in error_line(result)
    assert not json.loads((out / ".export.json").read_bytes())["finished"]
    assert refit("verify", out / "own").code == 1
    path.write_bytes(whole)
    assert refit("export", standing, "--format", form, "--out", out).code == 0


@pytest.mark.parametrize("form", ["json", "shards"])
def test_a_key_that_leads_out_of_a_tar_is_refused(labelled: Own, tmp_path: Path, form: str) -> None:
    """The keys of an index that nobody vouches for do not become names of members."""
    path = copy_of(labelled, tmp_path) / "own-000000.arrow"
    table = read_arrow(path)
    keys = table.column("key").to_pylist()
    keys[0] = "../../" + keys[0][6:]
    batch = table.set_column(0, table.schema.field(0), pa.array(keys)).to_batches()[0]
    content = json.loads(table.schema.metadata[METADATA_KEY])
    content.pop("sha256")
    sealed = batch.replace_schema_metadata(shard_metadata(batch, content))
    path.write_bytes(arrow_bytes(sealed))
    result = refit("export", path.parent, "--format", form, "--out", tmp_path / "out")
    assert result.code == 1
    assert "own-000000" in error_line(result)
    assert not list(tmp_path.glob("out/own/own-000000.*"))


def full_disk(tree: Own, out: Path, form: str) -> None:
    """A limit on the size of files stands for the disk: one line, and the command goes on."""
    args = ("export", tree.out, "--format", form, "--out", out, "--workers", 1)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, 4 << 10))

    full = refit_process(*args, preexec_fn=limit)
    assert full.code == 1
    assert "size limit" in error_line(full)
    assert refit(*args).code == 0
    assert not [name for name in hashes(out) if ".tmp" in name]


def test_a_full_disk_is_one_line_and_the_command_goes_on(labelled: Own, tmp_path: Path) -> None:
    full_disk(labelled, tmp_path / "out", "parquet")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["shards", "json", "wids", "energon"])
def test_a_full_disk_is_one_line_in_other_formats(labelled: Own, tmp_path: Path, form: str) -> None:
    full_disk(labelled, tmp_path / "out", form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_was_cut_off_is_made_anew(labelled: Own, tmp_path: Path, form: str) -> None:
    """As after a crash of the machine: no row may be missing unsaid."""
    out = tmp_path / "out"
    export(labelled, form, out)
    whole = hashes(out)
    path = min((*out.rglob("*.tar"), *out.rglob("*.parquet")))
    data = path.read_bytes()
    for length in (0, 1000, len(data) // 2, len(data) - 2000):
        path.write_bytes(data[:length])
        said = export(labelled, form, out)
        assert said["kept"] == said["files"] - 1, length
        assert hashes(out) == whole, length


def kills(tree: Own, place: Path, form: str, every: int) -> Counter[str]:
    """Kill exports at some of their steps, and let each go on: the bytes of an undisturbed one."""
    out = place / "out"
    args = [
        *("export", tree.out, "--format", form, "--out", out, "--where", "source_row < 12"),
        *("--workers", 1),
    ]
    assert refit(*args).code == 0
    undisturbed = hashes(out)
    seen: Counter[str] = Counter()
    for step in range(1, 400, every):
        shutil.rmtree(out)
        out.mkdir()
        if kill_at(step, out, "own", args).phase is None:
            break
        names = hashes(out)
        seen["begun" if ".export.json" in names else "nothing"] += 1
        if form == "shards":
            whole = refit("verify", out / "own").code == 0
            assert whole == (f"own/{MANIFEST}" in names), step
            seen["whole"] += whole
        again = refit(*args)
        assert again.code == 0, (step, again.err)
        assert hashes(out) == undisturbed, step
    else:
        pytest.fail("a run has more steps than were looked at")
    return seen


@pytest.mark.parametrize("form", ["shards", "energon"])
def test_killed_at_some_steps_the_command_goes_on(labelled: Own, tmp_path: Path, form: str) -> None:
    assert kills(labelled, tmp_path, form, every=17)["begun"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_killed_at_any_step_the_command_goes_on(labelled: Own, tmp_path: Path, form: str) -> None:
    seen = kills(labelled, tmp_path, form, every=1)
    assert seen["nothing"] > 0
    assert seen["begun"] > 3
    assert seen["whole"] > 0 or form != "shards"


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 12))
def test_shards_are_put_together_up_to_the_largest(counts: list[int], most: int) -> None:
    runs = pack(counts, most)
    assert [place for begin, end in runs for place in range(begin, end)] == list(range(len(counts)))
    sums = [sum(counts[begin:end]) for begin, end in runs]
    assert all(
        size <= most or end - begin == 1 for size, (begin, end) in zip(sums, runs, strict=True)
    )
    firsts = [counts[begin] for begin, _ in runs]
    assert all(size + first > most for size, first in zip(sums, firsts[1:], strict=False))


@given(st.sets(st.integers(0, 30)), st.integers(31, 40))
def test_runs_hold_the_rows_that_are_left_out(kept: set[int], total: int) -> None:
    runs = left_out_runs(total, np.array(sorted(kept), np.int64))
    rows = [row for begin, end in runs for row in range(begin, end)]
    assert rows == [row for row in range(total) if row not in kept]
    assert all(begin < end for begin, end in runs)
    assert all(end < begin for (_, end), (begin, _) in pairwise(runs))
