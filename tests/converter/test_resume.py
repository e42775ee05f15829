"""What is kept, what is built again, and what is refused when a folder already holds shards."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refit_shard.shards_spec.manifest import read_manifest
from refit_shard.shards_spec.storage.folder import open_folder
from tests.small import Own, error_line, hashes, own, quarantine, refit

SHARDED = ("--samples-per-shard", 2)


def contents(folder: Path) -> list[str]:
    """The hash of each shard's tar, in the order of the shards, whatever they are called."""
    manifest = read_manifest(open_folder(str(folder)))
    found = [hashes(folder)[f"{entry.name}.tar"] for entry in manifest.shards]
    assert found == [entry.tar_sha256 for entry in manifest.shards]
    return found


def times(tree: Own) -> dict[str, int]:
    """When each shard file was written."""
    return {path.name: path.stat().st_mtime_ns for path in tree.out.glob("own-*")}


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """Four shards that stand."""
    tree = own(tmp_path, rows=8)
    assert tree.build(*SHARDED).code == 0
    assert len(times(tree)) == 8
    return tree


def test_the_same_command_again_keeps_every_shard(tree: Own) -> None:
    before, files = times(tree), hashes(tree.out)
    result = tree.build(*SHARDED, "--json")
    assert result.code == 0
    assert '"kept_shards": 4' in result.out
    assert times(tree) == before
    assert hashes(tree.out) == files


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Cut the second half off."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave zero bytes."""
    path.write_bytes(b"")


@pytest.mark.parametrize("suffix", [".tar", ".arrow"])
@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_a_damaged_shard_alone_is_built_again(
    tree: Own, suffix: str, damage: Callable[[Path], None]
) -> None:
    before, files = times(tree), hashes(tree.out)
    damage(tree.out / f"own-000001{suffix}")
    result = tree.build(*SHARDED)
    assert result.code == 0, result.err
    assert hashes(tree.out) == files
    changed = {name for name, time in times(tree).items() if time != before[name]}
    assert changed == {"own-000001.tar", "own-000001.arrow"}


def test_while_a_shard_is_built_again_the_others_stay_published(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refit_shard.converter.build import work

    flip(tree.out / "own-000001.tar")
    before = hashes(tree.out)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "decode_frame", killed)
    assert tree.build(*SHARDED).code == 130
    assert hashes(tree.out) == before
    result = refit("verify", tree.out)
    assert result.code == 1
    assert "own-000001.tar: its content has changed since the build" in result.out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--quality", 80), "with quality 90, not 80"),
        (("--box-px", 128), "with box_px 256, not 128"),
        (("--seed", 5), "with seed 0, not 5"),
        (("--samples-per-shard", 3), "with samples_per_shard 2, not 3"),
        (("--limit", 6), "from other rows of the npz (--limit)"),
        (("--remap", "a/000=a/001"), "from frames at other places below their root"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_option_is_refused_and_overwrite_replaces(
    tree: Own, option: tuple[object, ...], said: str, finished: bool
) -> None:
    if not finished:
        (tree.out / "manifest.json").unlink()
        said = "from another source or with other options"
    files = hashes(tree.out)
    result = tree.build(*SHARDED, *option)
    assert result.code == 2
    assert said in error_line(result)
    assert "--overwrite" in error_line(result)
    assert hashes(tree.out) == files
    assert tree.build(*SHARDED, *option, "--overwrite").code == 0
    assert hashes(tree.out) != files
    assert refit("verify", tree.out).code == 0


def test_another_npz_is_refused_and_overwrite_leaves_nothing_of_the_old(tree: Own) -> None:
    tree.save(**{key: value[:4] for key, value in tree.columns.items()})
    result = tree.build(*SHARDED)
    assert result.code == 2
    assert "from another npz" in error_line(result)
    mine = tree.out / "own-notes.tar"
    mine.write_bytes(b"the user's own")
    assert tree.build(*SHARDED, "--overwrite").code == 0
    assert len(times(tree)) == 5
    assert mine.read_bytes() == b"the user's own"
    assert refit("verify", tree.out).code == 0


def test_a_tar_that_a_killed_build_of_another_plan_left_does_not_stay(tree: Own) -> None:
    for name in ("manifest.json", "own-000000.arrow", "own-000001.arrow", "own-000002.arrow"):
        (tree.out / name).unlink()
    (tree.out / "own-000003.arrow").unlink()
    (tree.out / ".own-000007.tar.0a1b2c3d.tmp").write_bytes(b"half")
    assert tree.build("--samples-per-shard", 4).code == 0
    assert {path.name for path in tree.out.glob("*.tar")} == {"own-000000.tar", "own-000001.tar"}
    assert not list(tree.out.glob(".*"))


def test_whole_shards_are_kept_although_their_frame_is_gone(tree: Own) -> None:
    whole = hashes(tree.out)
    (tree.root / "a/001.jpg").unlink()
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == whole


@pytest.mark.parametrize("published", [True, False])
def test_a_frame_that_is_put_there_later_is_picked_up(tmp_path: Path, published: bool) -> None:
    tree = own(tmp_path, rows=8)
    assert tree.build(*SHARDED).code == 0
    whole = contents(tree.out)
    frame = tree.root / "a/001.jpg"
    data = frame.read_bytes()
    frame.unlink()
    assert tree.build(*SHARDED, "--overwrite").code == 0
    assert quarantine(tree.out) == {2: "missing", 3: "missing"}
    before, standing = times(tree), hashes(tree.out)
    assert tree.build(*SHARDED).code == 0
    assert (times(tree), hashes(tree.out)) == (before, standing)

    if not published:
        (tree.out / "manifest.json").unlink()
    frame.write_bytes(data)
    assert tree.build(*SHARDED).code == 0
    assert quarantine(tree.out) == {}
    assert contents(tree.out) == whole
    assert sum(time != before.get(name) for name, time in times(tree).items()) == 2
    assert refit("verify", tree.out).code == 0


def test_a_frame_that_is_only_half_usable_keeps_its_shard(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=2)
    center = tree.columns["center"].copy()
    center[1] = 1000, 1000
    tree.save(center=center)
    assert tree.build().code == 0
    before = times(tree)
    assert tree.build().code == 0
    assert times(tree) == before
    assert quarantine(tree.out) == {1: "box_outside_image"}


HOLD = """
import sys
from refit_shard.converter.build.lock import build_lock
from refit_shard.shards_spec.storage.folder import open_folder
with build_lock(open_folder(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_build_into_the_same_folder_refuses(tree: Own) -> None:
    files = hashes(tree.out)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tree.out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for option in ((), ("--overwrite",), ("--seed", 9, "--overwrite")):
            result = tree.build(*SHARDED, *option)
            assert result.code == 2
            assert "another build is writing there" in error_line(result)
        holder.kill()  # a lock goes with its process
        holder.wait()
        assert tree.build(*SHARDED).code == 0
    finally:
        holder.kill()
        holder.communicate()
    assert hashes(tree.out) == files


def test_rows_of_the_kept_shards_count_towards_the_share_of_bad_rows(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=8)
    tree.save(scale=np.array([np.nan, 0, -1, 0.2, 0.2, 0.2, 0.2, 0.2]))
    assert refit(*tree.command(*SHARDED)).code == 1
    again = refit(*tree.command(*SHARDED))
    assert again.code == 1
    assert "3 of 8 rows are in quarantine (37.5%; 3 bad_box)" in error_line(again)
    assert not (tree.out / "manifest.json").exists()
    assert refit(*tree.command(*SHARDED, "--max-bad", 0.375)).code == 0


def test_rows_read_with_a_warning_are_counted_also_of_kept_shards(tree: Own) -> None:
    """JPEGs with a JFIF revision that there is not: their pixels are whole."""
    tars = contents(tree.out)
    for name in ("a/000.jpg", "a/002.jpg"):
        data = (tree.root / name).read_bytes()
        tree.put(name, data.replace(b"JFIF\0\1", b"JFIF\0\7", 1))
    for options in (("--overwrite",), ()):
        result = tree.build(*SHARDED, "--json", *options)
        assert result.code == 0, result.err
        (warned,) = json.loads(result.out)["built"][0]["warned"].items()
        assert warned[1] == 4
        assert read_manifest(open_folder(str(tree.out))).warned == dict([warned])
    assert f"own: 4 rows were read with a warning: {warned[0]}" in tree.build(*SHARDED).out
    assert quarantine(tree.out) == {}
    assert contents(tree.out) == tars
    assert refit("verify", tree.out).code == 0


def test_rows_beyond_the_limit_are_left_out_and_accounted_for(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=8)
    result = tree.build(*SHARDED, "--limit", 6)
    assert result.code == 0
    assert "own: 2 rows of the npz were left out (--limit)" in result.out
    manifest = read_manifest(open_folder(str(tree.out)))
    assert (manifest.source_rows, manifest.rows, manifest.left_out) == (8, 6, ((6, 8),))
    assert refit("verify", tree.out).code == 0
    assert tree.build(*SHARDED).code == 2
    assert tree.build(*SHARDED, "--limit", 100, "--overwrite").code == 0
    files = hashes(tree.out)
    assert tree.build(*SHARDED).code == 0  # a limit beyond the end is none
    assert hashes(tree.out) == files
