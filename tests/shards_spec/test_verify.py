"""``verify`` finds every kind of damage, and names the shard and the row."""

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard.shards_spec.errors import ShardError, StorageError
from refit_shard.shards_spec.manifest import plan_hash
from refit_shard.shards_spec.reader import parse_index
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.verify import verify
from refit_shard.shards_spec.writer import METADATA_KEY, shard_metadata
from tests.searches import examples
from tests.small import Own, own, read_arrow, refit, sealed

FIRST = "own-000000"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Ten rows in three shards, two in quarantine."""
    tree = own(tmp_path_factory.mktemp("built"), rows=12)
    (tree.root / "a/004.jpg").write_bytes(b"")
    assert tree.build("--samples-per-shard", 4).code == 0
    return tree


@pytest.fixture(scope="module")
def whole(built: Own) -> Path:
    """Its folder."""
    return built.out


@pytest.fixture
def folder(built: Own, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(built.out, tmp_path / "own"))


def read_tar(path: Path) -> dict[str, bytes]:
    """Members by name, in their order."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A tar of the format's kind."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_index(path: Path, table: pa.Table) -> None:
    """An index as one record batch."""
    (batch,) = table.combine_chunks().to_batches()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with other values in one column."""
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.types[at]))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def reseal(stem: Path) -> None:
    """Make an index state the hash of its tar, and of what it holds itself."""
    index, tar = stem.with_suffix(".arrow"), stem.with_suffix(".tar").read_bytes()
    # By the reader that checks all first: Arrow's functions end the process on some damage.
    batch = parse_index(pa.py_buffer(index.read_bytes()), index.name)
    content = json.loads(batch.schema.metadata[METADATA_KEY])
    del content["sha256"]
    content |= {"tar_sha256": hashlib.sha256(tar).hexdigest(), "tar_bytes": len(tar)}
    table = pa.Table.from_batches([batch.replace_schema_metadata(shard_metadata(batch, content))])
    write_index(index, table)


def sign(folder: Path) -> None:
    """Make the hashes of indexes and manifest those of the files: damage that was built so."""

    def resign(manifest: dict[str, Any]) -> None:
        for entry in manifest["shards"]:
            with contextlib.suppress(ShardError, KeyError, TypeError, ValueError):
                reseal(folder / entry["name"])
            for end in ("tar", "arrow"):
                data = (folder / f"{entry['name']}.{end}").read_bytes()
                entry[f"{end}_bytes"] = len(data)
                entry[f"{end}_sha256"] = hashlib.sha256(data).hexdigest()

    change_manifest(folder, resign)


def broken(folder: Path, *, quick: bool = False) -> str:
    """The one problem that ``verify`` names, with exit code 1."""
    result = refit("verify", folder, "--json", *(["--quick"] if quick else []))
    assert result.code == 1, result
    assert "Traceback" not in result.err
    (report,) = json.loads(result.out)
    assert report["ok"] is False
    (problem,) = report["problems"]
    assert "\n" not in problem
    return str(problem)


def test_whole_shards_verify_and_so_do_their_copies(built: Own, folder: Path) -> None:
    for path in (built.out, folder, folder.parent):
        assert refit("verify", path).code == 0
        assert refit("verify", path, "--quick").code == 0
    sign(folder)
    assert refit("verify", folder).code == 0
    said = refit("verify", folder).out
    assert "ok, 10 rows in 3 shards" in said


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("suffix", ["tar", "arrow"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_byte_anywhere_in_a_shard_is_found(
    folder: Path, suffix: str, part: float, quick: bool
) -> None:
    path = folder / f"own-000001.{suffix}"
    data = bytearray(path.read_bytes())
    data[int(part * len(data))] ^= 1
    path.write_bytes(data)
    assert broken(folder, quick=quick).startswith(f"own-000001.{suffix}: its content has changed")


@pytest.mark.parametrize("suffix", ["tar", "arrow"])
def test_a_missing_a_short_and_a_swapped_file_are_found(folder: Path, suffix: str) -> None:
    first, second = (folder / f"own-00000{i}.{suffix}" for i in (0, 1))
    data = first.read_bytes()
    first.unlink()
    assert "own-000000." + suffix + ": missing" in broken(folder)
    first.write_bytes(data[:-512])
    assert f"{first.name}: {len(data) - 512} bytes, the manifest says {len(data)}" in broken(folder)
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    result = refit("verify", folder)
    assert result.code == 1
    assert "own-000000" in result.out
    assert "1 more shard" in result.out


def test_an_image_of_other_bytes_is_named_by_its_row(folder: Path) -> None:
    table = read_arrow(folder / f"{FIRST}.arrow")
    tar = bytearray((folder / f"{FIRST}.tar").read_bytes())
    row = 2
    offset, length = (table[name][row].as_py() for name in ("jpg_offset", "jpg_length"))
    tar[offset + length // 2] ^= 0x10
    (folder / f"{FIRST}.tar").write_bytes(tar)
    sign(folder)
    key = table["key"][row].as_py()
    assert broken(folder) == f"{FIRST}: row 2 ({key}): the JPEG's crc32c differs from the index"


def spoil_image(folder: Path, row: int, image: bytes) -> str:
    """Another image in the tar, with index, crc and hashes that agree with it; its key."""
    table = read_arrow(folder / f"{FIRST}.arrow")
    members = read_tar(folder / f"{FIRST}.tar")
    key = str(table["key"][row].as_py())
    record = np.load(io.BytesIO(members[f"{key}.npy"]))
    record["jpg_crc32c"] = crc32c(image)
    sealed(record)
    stream = io.BytesIO()
    np.save(stream, record)
    members |= {f"{key}.jpg": image, f"{key}.npy": stream.getvalue()}
    write_tar(folder / f"{FIRST}.tar", list(members.items()))
    keys = table["key"].to_pylist()
    with tarfile.open(folder / f"{FIRST}.tar") as tar:
        places = [tar.getmember(f"{name}.jpg") for name in keys]
    crcs = [crc32c(members[f"{name}.jpg"]) for name in keys]
    sums = table["record_crc32c"].to_pylist()
    sums[row] = int(record["record_crc32c"])
    table = with_column(table, "record_crc32c", sums)
    table = with_column(table, "jpg_offset", [place.offset_data for place in places])
    table = with_column(table, "jpg_length", [place.size for place in places])
    write_index(folder / f"{FIRST}.arrow", with_column(table, "jpg_crc32c", crcs))
    sign(folder)
    return key


def test_an_image_that_was_never_whole_is_found_by_decoding_only(folder: Path) -> None:
    table = read_arrow(folder / f"{FIRST}.arrow")
    members = read_tar(folder / f"{FIRST}.tar")
    image = members[f"{table['key'][1].as_py()}.jpg"]
    key = spoil_image(folder, 1, image[: len(image) * 2 // 3])
    assert refit("verify", folder, "--quick").code == 0
    assert broken(folder).startswith(f"{FIRST}: row 1 ({key}): the JPEG cannot be decoded (")


def test_an_image_of_another_size_is_found(folder: Path) -> None:
    image = cv2.imencode(".jpg", np.zeros((7, 9, 3), np.uint8))[1].tobytes()
    key = spoil_image(folder, 1, image)
    assert broken(folder).startswith(f"{FIRST}: row 1 ({key}): the JPEG is 9x7, the index says")


def test_a_png_in_the_place_of_an_image_is_found(folder: Path) -> None:
    key = spoil_image(folder, 3, cv2.imencode(".png", np.zeros((7, 9, 3), np.uint8))[1].tobytes())
    assert broken(folder).startswith(f"{FIRST}: row 3 ({key}): the JPEG cannot be decoded")


def test_a_label_that_changed_in_the_tar_is_told_from_one_of_the_index(folder: Path) -> None:
    table = read_arrow(folder / f"{FIRST}.arrow")
    members = read_tar(folder / f"{FIRST}.tar")
    key = str(table["key"][1].as_py())
    members[f"{key}.npy"] = members[f"{key}.npy"][:-9] + b"\x55" + members[f"{key}.npy"][-8:]
    write_tar(folder / f"{FIRST}.tar", list(members.items()))
    sign(folder)
    wanted = f"{FIRST}: row 1 ({key}): the labels in the .npy are damaged (crc32c)"
    assert broken(folder) == wanted


@pytest.mark.parametrize(
    "name", ["pose", "center", "window", "keypoints", "has_smpl", "gender", "imgname", "source_row"]
)
def test_a_label_that_differs_between_index_and_tar_is_named(folder: Path, name: str) -> None:
    table = read_arrow(folder / f"{FIRST}.arrow")
    values = table[name].to_pylist()
    old = values[1]
    number = [old[0] + 1, *old[1:]] if isinstance(old, list) else old
    values[1] = "other" if isinstance(old, str) else number
    if isinstance(old, (bool, int)):
        values[1] = not old if isinstance(old, bool) else old + 1
    write_index(folder / f"{FIRST}.arrow", with_column(table, name, values))
    sign(folder)
    key = table["key"][1].as_py()
    wanted = f"{FIRST}: row 1 ({key}): {name!r} in the .npy differs from the index"
    assert broken(folder) == wanted


def rearranged(change: Callable[[list[tuple[str, bytes]]], object]) -> Callable[[Path], None]:
    """A spoiler that changes the list of a tar's members."""

    def spoil(folder: Path) -> None:
        members = list(read_tar(folder / f"{FIRST}.tar").items())
        change(members)
        write_tar(folder / f"{FIRST}.tar", members)
        sign(folder)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            rearranged(lambda m: m.append(("extra.txt", b"x"))),
            "holds 'extra.txt', not in the index",
        ),
        (rearranged(lambda m: m.insert(0, ("extra.txt", b"x"))), "row 0 ("),
        (rearranged(lambda m: m.pop()), "row 3 ("),
        (rearranged(lambda m: m.pop(2)), "row 1 ("),
        (rearranged(lambda m: m.__setitem__(slice(0, 4), m[2:4] + m[:2])), "row 0 ("),
        (
            rearranged(lambda m: m.__setitem__(1, (m[1][0], bytes(len(m[1][1]))))),
            "the .npy is damaged",
        ),
        (rearranged(lambda m: m.__setitem__(1, (m[1][0], m[1][1][:-8]))), "the .npy has"),
        (rearranged(lambda m: m.__setitem__(1, (m[1][0], bytes(2 << 20)))), "the .npy has 2097152"),
    ],
)
def test_members_that_are_not_those_of_the_index_are_found(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    problem = broken(folder)
    assert problem.startswith(FIRST)
    assert said in problem


def test_a_pickle_in_the_place_of_labels_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"

    class Bomb:
        """Unpickling this writes a file."""

        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.write_text, (planted, "ran"))

    stream = io.BytesIO()
    np.save(stream, np.array(Bomb(), object), allow_pickle=True)
    rearranged(lambda m: m.__setitem__(1, (m[1][0], stream.getvalue())))(folder)
    assert "the .npy has" in broken(folder)
    assert not planted.exists()
    np.load(io.BytesIO(stream.getvalue()), allow_pickle=True)
    assert planted.exists()


def test_labels_that_state_an_enormous_array_are_damage(folder: Path) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(stream, header)
    rearranged(lambda m: m.__setitem__(1, (m[1][0], stream.getvalue())))(folder)
    assert "the .npy has" in broken(folder)


def test_a_row_twice_and_a_row_nowhere_are_found(folder: Path) -> None:
    shutil.copy(folder / f"{FIRST}.tar", folder / "own-000001.tar")
    shutil.copy(folder / f"{FIRST}.arrow", folder / "own-000001.arrow")

    def same(manifest: dict[str, Any]) -> None:
        first, second, _ = manifest["shards"]
        manifest["rows"] += first["rows"] - second["rows"]
        manifest["source_rows"] += first["rows"] - second["rows"]
        second["rows"] = first["rows"]

    change_manifest(folder, same)
    sign(folder)
    assert "of them twice" in broken(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(), "1 rows, the manifest counts"),
        (lambda rows: rows.append(rows[0]), "3 rows, the manifest counts"),
        (lambda rows: rows[0].update(source_row=99), "source rows"),
        (lambda rows: rows[0].update(reason="another"), "the manifest counts"),
        (
            lambda rows: rows[0].update(detail="another"),
            "is missing or differs from the index of its shard",
        ),
        (
            lambda rows: rows[0].update(imgname="another"),
            "is missing or differs from the index of its shard",
        ),
    ],
)
def test_a_quarantine_that_does_not_add_up_is_found(
    folder: Path, change: Callable[[list[dict[str, Any]]], object], said: str
) -> None:
    path = folder / "quarantine.feather"
    table = read_arrow(path)
    rows = table.to_pylist()
    assert len(rows) == 2
    change(rows)
    write_index(path, pa.Table.from_pylist(rows, table.schema))
    assert said in broken(folder)


def test_a_quarantine_that_is_missing_or_no_table_is_found(folder: Path) -> None:
    path = folder / "quarantine.feather"
    path.write_bytes(b"nothing")
    assert "not a readable Arrow file" in broken(folder)
    path.unlink()
    assert "quarantine.feather: missing" in broken(folder)


def test_a_missing_manifest_among_whole_data_sets_is_found(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "other")
    (folder / "manifest.json").unlink()
    result = refit("verify", folder.parent)
    assert result.code == 1
    assert f"{folder}: BROKEN: {folder}/manifest.json: missing" in result.out
    assert "other: ok, 10 rows" in result.out


def test_a_column_s_name_that_is_not_text_is_a_line(folder: Path) -> None:
    path = folder / f"{FIRST}.arrow"
    path.write_bytes(path.read_bytes().replace(b"has_smpl", b"has_\x80mpl"))
    sign(folder)
    assert f"{FIRST}.arrow: not a readable Arrow file" in broken(folder)


def test_a_string_that_is_not_text_is_a_line(folder: Path) -> None:
    path = folder / f"{FIRST}.arrow"
    path.write_bytes(path.read_bytes().replace(b"a/00", b"a/\x80\xff"))
    sign(folder)
    assert f"{FIRST}.arrow: not a readable Arrow file" in broken(folder)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["tar", "arrow"]),
    at=st.integers(0, 10**6),
    new=st.binary(min_size=1, max_size=8),
)
def test_any_damage_that_was_signed_is_a_line_or_harmless_padding(
    whole: Path, tmp_path: Path, suffix: str, at: int, new: bytes
) -> None:
    shutil.rmtree(tmp_path / "own", ignore_errors=True)
    folder = Path(shutil.copytree(whole, tmp_path / "own"))
    path = folder / f"{FIRST}.{suffix}"
    data = bytearray(path.read_bytes())
    at %= len(data) - len(new)
    data[at : at + len(new)] = new
    path.write_bytes(data)
    sign(folder)
    for problem in verify(str(folder)):
        assert FIRST in problem or "source rows" in problem


def test_a_shard_of_another_plan_is_found(built: Own, folder: Path, tmp_path: Path) -> None:
    """The same npz and rows, other pixels: both files and the manifest's entry agree."""
    other = tmp_path / "other"
    args = ("--samples-per-shard", 4, "--quality", 20, "--out", other)
    assert built.build(*args).code == 0
    entries = json.loads((other / "own/manifest.json").read_bytes())["shards"]
    for end in ("tar", "arrow"):
        shutil.copy(other / f"own/{FIRST}.{end}", folder / f"{FIRST}.{end}")
    change_manifest(folder, lambda manifest: manifest["shards"].__setitem__(0, entries[0]))
    for quick in (True, False):
        assert broken(folder, quick=quick) == (
            f"{FIRST}.arrow: belongs to another plan than the manifest's"
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "other"),
        ("seed", 5),
        ("quality", 30),
        ("box_px", 64),
        ("source_sha256", "0" * 64),
        ("envelope", {"scale": 3.0, "rotation": True, "margin": 2.0}),
    ],
)
def test_what_the_manifest_states_beside_its_plan_must_be_the_plan_s(
    folder: Path, key: str, value: object
) -> None:
    change_manifest(folder, lambda manifest: manifest.__setitem__(key, value))
    assert f"{key!r} is not that of 'plan'; the file is damaged" in broken(folder)


def test_a_plan_that_was_edited_with_its_hash_is_not_that_of_the_shards(folder: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["plan"]["use_pose_3d"] = not manifest["plan"]["use_pose_3d"]
        manifest["plan_hash"] = plan_hash(manifest["plan"])

    change_manifest(folder, edit)
    assert (
        "belongs to another plan than the manifest's"
        in json.loads(refit("verify", folder, "--json").out)[0]["problems"][0]
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("frames", 99, "says 99 frames, the indexes"),
        ("warned", {"JPEG header: damaged": 1}, "counts the warnings"),
    ],
)
def test_sums_of_the_manifest_must_be_those_of_the_indexes(
    folder: Path, key: str, value: object, said: str
) -> None:
    change_manifest(folder, lambda manifest: manifest.__setitem__(key, value))
    assert said in broken(folder)


def test_a_folder_that_may_not_be_listed_does_not_hide_the_others(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built.out, tmp_path / "all/own")
    (tmp_path / "all/lost+found").mkdir()
    listing = Folder.names

    def names(self: Folder) -> dict[str, int]:
        if self.url.endswith("lost+found"):
            raise StorageError(f"{self.url}: permission denied")
        return listing(self)

    monkeypatch.setattr(Folder, "names", names)
    result = refit("verify", tmp_path / "all")
    assert result.code == 0
    assert f"{tmp_path}/all/own: ok, 10 rows" in result.out
