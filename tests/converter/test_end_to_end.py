"""Each dataset in its true layout is built by the command and read back by other means."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.trees import Tree, make_config, make_tree
from tests.converter.reference import check_geometry, crop_of, labels_of, psnr
from tests.small import encoded, index_rows, own, picture, refit

FRAMES = {
    "bedlam": 6,
    "coco": 6,
    "3dpw": 3,
    "agora": 3,
    "mpii": 2,
    "h36m": 3,
    "mpi-inf-3dhp": 2,
}
EXTRINSICS = {"cam_R", "cam_t", "trans"}


class Built:
    """All trees and their shards."""

    def __init__(self, folder: Path) -> None:
        self.trees: dict[str, Tree] = {
            name: make_tree(name, folder, frames=frames) for name, frames in FRAMES.items()
        }
        config = make_config(folder, list(self.trees.values()))
        self.out = folder / "shards"
        names = [part for name in FRAMES for part in ("--dataset", name)]
        where = ["--data-config", config, "--out", self.out]
        self.result = refit("build", *names, *where, "--workers", 0, "--samples-per-shard", 5)

    def frame(self, name: str, imgname: str) -> Any:
        """A frame as its labels see it, BGR."""
        image = cv2.imread(str(self.trees[name].root / imgname))
        assert image is not None
        return np.rot90(image, -1) if "closeup" in imgname else image


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Seven datasets, built once."""
    return Built(tmp_path_factory.mktemp("trees"))


def flat(value: Any) -> Any:
    """A value as one dimension, whatever holds it."""
    return np.ravel(np.asarray(value))


def members(folder: Path) -> dict[str, bytes]:
    """Every member of every tar by name."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def test_the_build_succeeds_and_names_what_it_found(built: Built) -> None:
    assert built.result.code == 0, built.result.err
    for name, tree in built.trees.items():
        assert f"{tree.rows} of {tree.rows}" in built.result.out
        assert f"{name}: {built.out / name}" in built.result.out
    assert "coco: found imgname, center, scale" in built.result.err
    assert "not used: is_kid, kid_shape" in built.result.err


def test_all_data_sets_verify(built: Built) -> None:
    result = refit("verify", built.out)
    assert result.code == 0, result.out
    for name, tree in built.trees.items():
        assert f"{built.out / name}: ok, {tree.rows} rows" in result.out


@pytest.mark.parametrize("name", FRAMES)
def test_every_row_is_in_one_shard_and_frames_stay_together(built: Built, name: str) -> None:
    rows = index_rows(built.out / name)
    assert sorted(row["source_row"] for row in rows) == list(range(built.trees[name].rows))
    shards: dict[str, set[str]] = {}
    for row in rows:
        shards.setdefault(row["imgname"], set()).add(row["shard"])
    assert len(shards) == FRAMES[name]
    assert all(len(found) == 1 for found in shards.values())
    manifest = json.loads((built.out / name / "manifest.json").read_bytes())
    assert (manifest["rows"], manifest["frames"]) == (built.trees[name].rows, FRAMES[name])
    assert manifest["quarantined"] == {}


@pytest.mark.parametrize("name", FRAMES)
def test_labels_are_those_of_the_npz(built: Built, name: str) -> None:
    with np.load(built.trees[name].npz) as data:
        wanted = labels_of(data, name)
    for row in index_rows(built.out / name):
        assert row["key"] == f"{name}-{row['source_row']:08d}"
        assert (row.keys() >= EXTRINSICS) == (name == "h36m")
        for key, values in wanted.items():
            assert np.array_equal(flat(row[key]), flat(values[row["source_row"]])), key
        if not row["has_camcalib"]:
            height, width = row["orig_shape"]
            assert row["img_focal"] == np.float32(np.sqrt(height**2 + width**2))
            assert row["img_center"] == [width / 2, height / 2]
        if not row["has_pose_3d"]:
            assert not np.any(row["pose_3d"])


@pytest.mark.parametrize("name", FRAMES)
def test_the_tar_alone_holds_the_same_labels(built: Built, name: str) -> None:
    found = members(built.out / name)
    rows = index_rows(built.out / name)
    assert len(found) == 2 * len(rows)
    for row in rows:
        record = np.load(io.BytesIO(found[row["key"] + ".npy"]), allow_pickle=False)
        for key in set(row) - {"shard", "jpg_offset", "jpg_length"}:
            stored = record[key][()]
            stored = stored.decode() if isinstance(stored, bytes) else stored
            assert np.array_equal(flat(stored), flat(row[key])), key


@pytest.mark.parametrize("name", FRAMES)
def test_windows_follow_the_formulas_and_nothing_is_enlarged(built: Built, name: str) -> None:
    for row in index_rows(built.out / name):
        height, width = built.frame(name, row["imgname"]).shape[:2]
        assert row["orig_shape"] == [height, width]
        check_geometry(row, 256)


@pytest.mark.parametrize("name", FRAMES)
def test_crops_are_cut_from_the_upright_frame(built: Built, name: str) -> None:
    found = members(built.out / name)
    for row in index_rows(built.out / name):
        stored = cv2.imdecode(np.frombuffer(found[row["key"] + ".jpg"], np.uint8), 1)
        wanted = crop_of(built.frame(name, row["imgname"]), row)
        assert stored is not None
        assert stored.shape == wanted.shape == (row["height"], row["width"], 3)
        assert psnr(np.asarray(stored, np.uint8), wanted) > 28
        assert psnr(np.asarray(stored, np.uint8), np.ascontiguousarray(wanted[::-1, ::-1])) < 25


def test_some_of_these_crops_are_shrunk_and_some_are_not(built: Built) -> None:
    factors = [row["k"][0] for name in FRAMES for row in index_rows(built.out / name)]
    assert min(factors) < 0.6
    assert max(factors) == 1.0


def closeup(folder: Path, imgname: str, *, with_principal_point: bool) -> dict[str, Any]:
    """A portrait frame with a red disc at its one joint, stored on its side, and its sample."""
    joint = (500.0, 1000.0)
    upright = picture(3, 720, 1280)
    upright[..., 2] //= 4
    cv2.circle(upright, (500, 1000), 12, (0, 0, 255), -1)
    tree = own(folder, rows=1)
    on_its_side = np.ascontiguousarray(np.rot90(upright))
    assert on_its_side.shape == (720, 1280, 3)
    tree.put(imgname, encoded(".png", on_its_side))
    part = np.zeros((1, 24, 3))
    part[0, 0] = *joint, 1.0
    principal = {"img_center": np.array([[360.0, 640.0]]), "img_focal": np.array([1500.0])}
    tree.save(
        imgname=np.array([imgname]),
        center=np.array([[480.0, 950.0]]),
        scale=np.array([2.0]),
        part=part,
        openpose=np.zeros((1, 25, 3)),
        orig_shape=np.array([[1280, 720]]),
        **(principal if with_principal_point else {}),
    )
    config = make_config(folder, [Tree("bedlam", tree.root, tree.npz, 1, 1)])
    extras = folder / "dataset_extras"
    extras.mkdir()
    tree.npz.rename(extras / "bedlam_train.npz")
    out = folder / "out"
    where = ["--data-config", config, "--out", out, "--workers", 0]
    result = refit("build", "--dataset", "bedlam", *where)
    assert result.code == 0, result.err
    (row,) = index_rows(out / "bedlam")
    return {**row, "jpg": members(out / "bedlam")[row["key"] + ".jpg"]}


@pytest.mark.parametrize("with_principal_point", [True, False])
def test_a_bedlam_closeup_has_its_joint_where_the_label_says(
    tmp_path: Path, with_principal_point: bool
) -> None:
    name = "20221011_1_250_batch01hand_closeup_suburb_a_6fps/png/seq_0/seq_0_0000.png"
    row = closeup(tmp_path, name, with_principal_point=with_principal_point)
    assert row["orig_shape"] == [1280, 720]
    image = cv2.imdecode(np.frombuffer(row["jpg"], np.uint8), 1)
    assert image is not None
    x0, y0 = row["window"][:2]
    joint = np.array(row["keypoints"]).reshape(49, 3)[25, :2]
    stored = (joint + 0.5 - [x0, y0]) * row["k"] - 0.5
    blue, green, red = np.moveaxis(image.astype(int), 2, 0)
    ys, xs = np.nonzero((red > 180) & (green < 90) & (blue < 90))
    assert len(xs) > 50
    assert np.hypot(xs.mean() - stored[0], ys.mean() - stored[1]) < 1.0


def test_each_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from refit_shard.converter.build import work
    from refit_shard.converter.frames.decode import decode_frame

    calls: list[int] = []

    def counting(data: bytes) -> Any:
        calls.append(hash(data))
        return decode_frame(data)

    monkeypatch.setattr(work, "decode_frame", counting)
    tree = own(tmp_path, rows=12, per_frame=4)
    order = np.random.default_rng(1).permutation(12)  # a frame's rows need not be neighbours
    tree.save(**{key: value[order] for key, value in tree.columns.items()})
    assert tree.build("--samples-per-shard", 5).code == 0
    assert len(index_rows(tree.out)) == 12
    assert len(calls) == len(set(calls)) == 3
