"""``--overwrite`` builds a set anew beside the one that stands, which goes once the new is whole;
a plain second run mends what is damaged and touches nothing else.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard import ShardSet
from refit_shard.converter.build import publish, work
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.shards_spec.manifest import read_manifest
from refit_shard.shards_spec.storage.folder import open_folder
from tests.small import Own, Result, encoded, error_line, hashes, index_rows, own, picture, refit

SHARDED = ("--samples-per-shard", 2)


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """Four shards that stand."""
    tree = own(tmp_path, rows=8)
    assert tree.build(*SHARDED).code == 0
    return tree


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the shards' files and the quarantine, without the generation in their names."""
    generation = read_manifest(open_folder(str(folder))).generation
    return {
        name.replace(f"-g{generation}", ""): sha256
        for name, sha256 in hashes(folder).items()
        if name != "manifest.json"
    }


def assert_whole(folder: Path) -> None:
    """It verifies, and holds nothing but what the manifest names."""
    result = refit("verify", folder)
    assert result.code == 0, result.out
    shards = read_manifest(open_folder(str(folder))).shards
    assert len(hashes(folder)) == 2 * len(shards) + 2


def stopped(tree: Own, monkeypatch: pytest.MonkeyPatch, after: int, *args: object) -> Result:
    """A build that is interrupted at the ``after``-th frame that it decodes."""
    count = 0

    def interrupted(data: bytes) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return decode_frame(data)

    with monkeypatch.context() as patched:
        patched.setattr(work, "decode_frame", interrupted)
        result = tree.build(*SHARDED, *args)
    assert result.code == 130
    return result


def kept(result: Result) -> int:
    """How many shards a build with ``--json`` kept."""
    assert result.code == 0, result.err
    return int(json.loads(result.out)["built"][0]["kept_shards"])


def test_frames_that_were_replaced_since_are_seen(tree: Own) -> None:
    before = contents(tree.out)
    tree.put("a/000.jpg", encoded(".jpg", picture(99)))
    assert kept(tree.build(*SHARDED, "--json")) == 4
    assert contents(tree.out) == before
    assert kept(tree.build(*SHARDED, "--json", "--overwrite")) == 0
    after = contents(tree.out)
    assert before.keys() == after.keys()
    assert sum(before[name] != after[name] for name in before) == 2
    assert_whole(tree.out)


@pytest.mark.parametrize("same_plan", [True, False])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_overwrite_leaves_the_old_set_and_goes_on(
    tree: Own, monkeypatch: pytest.MonkeyPatch, same_plan: bool, after: int
) -> None:
    before = hashes(tree.out)
    rows = index_rows(tree.out)
    options = ("--overwrite",) if same_plan else ("--quality", 80, "--overwrite")
    stopped(tree, monkeypatch, after, *options)
    assert hashes(tree.out).items() >= before.items()
    assert refit("verify", tree.out).code == 0
    assert len(ShardSet.open(str(tree.out))) == len(rows)
    assert kept(tree.build(*SHARDED, "--json", *options)) == after
    assert_whole(tree.out)
    assert {path.name for path in tree.out.glob("*.tar")} == {
        f"own-g1-00000{index}.tar" for index in range(4)
    }
    if same_plan:
        assert contents(tree.out) == {n: h for n, h in before.items() if n != "manifest.json"}


def test_a_plain_build_leaves_an_interrupted_overwrite_alone(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(tree.out)
    tree.put("a/000.jpg", encoded(".jpg", picture(99)))
    stopped(tree, monkeypatch, 3, "--overwrite")
    pending = hashes(tree.out)
    result = tree.build(*SHARDED)
    assert result.code == 0
    assert "an earlier --overwrite is not finished: run it again to go on, or" in result.out
    assert hashes(tree.out) == pending
    assert pending.items() >= before.items()
    assert kept(tree.build(*SHARDED, "--json", "--overwrite")) == 3
    assert_whole(tree.out)
    assert contents(tree.out) != {n: h for n, h in before.items() if n != "manifest.json"}


def test_an_overwrite_of_another_plan_begins_anew_beside_both(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(tree.out)
    stopped(tree, monkeypatch, 3, "--quality", 80, "--overwrite")
    stopped(tree, monkeypatch, 2, "--quality", 70, "--overwrite")
    assert hashes(tree.out).items() >= before.items()
    assert kept(tree.build(*SHARDED, "--quality", 70, "--overwrite", "--json")) == 2
    assert {path.name.rpartition("-")[0] for path in tree.out.glob("*.tar")} == {"own-g2"}
    assert_whole(tree.out)


def test_an_overwrite_whose_cleaning_was_interrupted_is_cleaned_up_by_any_run(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    for options in ((), ("--overwrite",)):
        with monkeypatch.context() as patched:
            patched.setattr(publish, "superseded", killed)
            assert tree.build(*SHARDED, "--overwrite").code == 130
        assert (tree.out / ".overwrite.json").exists()
        generation = read_manifest(open_folder(str(tree.out))).generation
        assert kept(tree.build(*SHARDED, "--json", *options)) == 4
        assert read_manifest(open_folder(str(tree.out))).generation == generation
        assert_whole(tree.out)


def cut(path: Path) -> None:
    """Leave the first half."""
    os.truncate(path, path.stat().st_size // 2)


def of_another_kind(path: Path) -> None:
    """JSON, but no manifest."""
    path.write_text("{}")


@pytest.mark.parametrize("damage", [cut, of_another_kind, Path.unlink])
@pytest.mark.parametrize("overwritten", [False, True])
def test_a_damaged_manifest_makes_no_good_shard_go(
    tree: Own, damage: Callable[[Path], None], overwritten: bool
) -> None:
    if overwritten:
        assert tree.build(*SHARDED, "--overwrite").code == 0
    before = hashes(tree.out)
    damage(tree.out / "manifest.json")
    assert kept(tree.build(*SHARDED, "--json")) == 4
    assert hashes(tree.out) == before


@pytest.mark.parametrize("overwritten", [False, True])
def test_damaged_shards_alone_are_replaced_by_a_plain_second_run(
    tree: Own, overwritten: bool
) -> None:
    if overwritten:
        assert tree.build(*SHARDED, "--overwrite").code == 0
    before = hashes(tree.out)
    first, last = (sorted(tree.out.glob("own-*"))[place] for place in (0, -1))
    cut(first)
    last.unlink()
    assert kept(tree.build(*SHARDED, "--json")) == 2
    assert hashes(tree.out) == before


def test_shards_of_an_older_format_stay_until_the_new_ones_are_whole(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((tree.out / "manifest.json").read_bytes())
    (tree.out / "manifest.json").write_text(json.dumps({**manifest, "format_version": 2}))
    (tree.out / "quarantine.feather").rename(tree.out / "quarantine.arrow")
    before = hashes(tree.out)
    result = tree.build(*SHARDED)
    assert result.code == 2
    assert "build them again with --overwrite" in error_line(result)
    assert hashes(tree.out) == before
    stopped(tree, monkeypatch, 2, "--overwrite")
    assert hashes(tree.out).items() >= before.items()
    assert tree.build(*SHARDED, "--overwrite").code == 0
    assert_whole(tree.out)


def test_a_manifest_of_something_else_is_not_replaced_unasked(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.out.mkdir(parents=True)
    (tree.out / "manifest.json").write_text('{"name": "my web app"}')
    result = tree.build()
    assert result.code == 2
    assert "not a manifest of shards" in error_line(result)
    assert list(hashes(tree.out)) == ["manifest.json"]
    assert tree.build("--overwrite").code == 0


def test_a_frame_completed_since_never_touches_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = own(tmp_path, rows=8)
    data = (tree.root / "a/001.jpg").read_bytes()
    (tree.root / "a/001.jpg").unlink()
    assert tree.build(*SHARDED).code == 0
    before = hashes(tree.out)
    tree.put("a/001.jpg", data)
    switched: list[dict[str, str]] = []
    write = publish.Publisher._write

    def watching(self: publish.Publisher, name: str, content: bytes) -> None:
        if name == "manifest.json":
            switched.append(hashes(tree.out))
        write(self, name, content)

    monkeypatch.setattr(publish.Publisher, "_write", watching)
    assert kept(tree.build(*SHARDED, "--json")) == 3
    (moment,) = switched
    assert moment.items() >= before.items(), "the old set is whole until the manifest switches"
    assert_whole(tree.out)
    assert sorted(row["source_row"] for row in index_rows(tree.out)) == list(range(8))


def test_too_many_bad_rows_in_an_overwrite_leave_the_old_set(tree: Own) -> None:
    before = hashes(tree.out)
    tree.save(scale=np.full(8, np.nan))
    result = tree.build(*SHARDED, "--overwrite", "--skip-checks")
    assert result.code == 1
    assert "quarantine-g1.feather" in error_line(result)
    assert hashes(tree.out).items() >= before.items()
    assert refit("verify", tree.out).code == 0


@pytest.mark.parametrize(
    ("name", "published"),
    [("own-000000.tar", False), ("own-000009.tar", True), ("own-g7-000000.tar", True)],
)
def test_a_tar_of_somebody_else_is_not_replaced_unasked(
    tree: Own, tmp_path: Path, name: str, published: bool
) -> None:
    """Webdataset's own habits give such names. One of ours without its index is replaced."""
    out = tmp_path / "elsewhere"
    if published:
        shutil.copytree(tree.out, out / "own")
    (out / "own").mkdir(parents=True, exist_ok=True)
    place = out / "own" / name
    with tarfile.open(place, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("000000.jpg"))
    mine = place.read_bytes()
    result = tree.build(*SHARDED, "--out", out)
    assert result.code == 2
    assert f"{place}: has the name of a shard of 'own' but is none" in error_line(result)
    assert place.read_bytes() == mine
    assert tree.build(*SHARDED, "--out", out, "--overwrite").code == 0
    assert refit("verify", out).code == 0


def test_a_tar_of_ours_without_its_index_is_built_again(tree: Own) -> None:
    """What a kill between naming the tar and naming its index leaves."""
    (tree.out / "manifest.json").unlink()
    (tree.out / "own-000001.arrow").unlink()
    assert tree.build(*SHARDED).code == 0
    assert refit("verify", tree.out).code == 0
