"""Labels of one's own in the batch: discs are drawn where they point, and found after augmentation;
rotations are compared with matrices; what a source lacks is zeros and said so.
"""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    EvaluationLoader,
    RenderOptions,
    ShardSet,
    StreamingLoader,
    StreamOptions,
    render,
    webdataset_item,
)
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.fields import FIELD
from refit_shard.shards_spec.own import RESERVED
from tests.loaders.photographs import OwnSet, Row, build_own, labels
from tests.loaders.streams import items
from tests.loaders.test_markers import CASES, RADIUS, draw_discs, find_disc, level
from tests.shards_spec.test_own import JOINTS, other_side
from tests.small import own, refit, samples_of

Floats = NDArray[np.float64]
MIRROR = np.diag([-1.0, 1.0, 1.0])
MARKS = 8
# Marks 0 to 3 are on the left, 4 to 7 their partners on the right.
FLIP = [4, 5, 6, 7, 0, 1, 2, 3]
PLAIN = RenderOptions(image="uint8")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> OwnSet:
    """Frames with eight discs, which own labels of every kind point at or belong to."""
    folder = tmp_path_factory.mktemp("own-labels")
    (folder / "flip.json").write_text(str(FLIP))
    rng = np.random.default_rng(5)
    frames: list[NDArray[np.uint8]] = []
    rows: list[Row] = []
    for (cx, cy), side in [((450.3, 350.8), 512.0), ((430.0, 371.25), 607.3)]:
        cells = rng.permutation(list(itertools.product((-1, 0, 1), repeat=2)))[:MARKS]
        points = (cells * 0.25 + rng.uniform(-0.05, 0.05, (MARKS, 2))) * side + (cx, cy)
        points = points.astype(np.float32).astype(np.float64)
        row = labels(rng, (cx, cy), side)
        row |= {
            "frame": len(frames),
            "marks": np.column_stack([points, np.arange(MARKS)]),
            "first": points[0],
            "joints": np.column_stack([(points - (cx, cy)) / side, rng.normal(size=MARKS)]),
            "touch": np.arange(MARKS) % 3 == 0,
            "smplx_pose": rng.normal(0, 0.7, 165),
            "hands": rng.normal(0, 0.7, (2, 48)),
            "still": rng.normal(size=(4, 2)),
            "word": "läuft",
        }
        rows.append(row)
        frames.append(draw_discs(700, 900, points))
    table = f"={folder / 'flip.json'}"
    keep = [
        *(f"marks:points2d{table}", "first:points2d", f"joints:points3d{table}:float64"),
        *(f"touch:permute{table}", "smplx_pose", "hands:axis_angle=mano_pair", "still", "word"),
    ]
    return build_own(folder, frames, rows, "--quality", 100, "--keep", ",".join(keep))


def all_cases(marked: OwnSet) -> Any:
    """Each augmentation of each row: (augmentation, row, item)."""
    for one, (row, sample) in itertools.product(
        CASES, zip(marked.rows, marked.samples, strict=True)
    ):
        yield one, row, render(sample, one, PLAIN)


def test_own_points_are_where_their_discs_are(marked: OwnSet) -> None:
    """And after a flip each is that of its partner, the values that it carries too."""
    seen = 0
    for one, row, item in all_cases(marked):
        reach = round(RADIUS * 256 / (200 * row["scale"] * one.sc)) + 4
        for place, (x, y, carried) in enumerate(item["marks"].tolist()):
            wanted = FLIP[place] if one.flip else place
            assert carried == wanted
            px, py = (x + 1) * 128 - 0.5, (y + 1) * 128 - 0.5
            if reach < min(px, py) and max(px, py) < 255 - reach:
                found, grey = find_disc(item["img"].numpy(), px, py, reach)
                assert np.hypot(*(found - (px, py))) < 0.25
                assert abs(grey - level(wanted)) < 3
                seen += 1
        first = item["marks"][FLIP[0] if one.flip else 0, :2]
        assert np.array_equal(item["first"].numpy(), first.numpy()), "a single point has no sides"
    assert seen > 200


@pytest.mark.parametrize("compat", ["sharp", "refit"])
def test_own_points_are_placed_as_the_keypoints_are(tmp_path: Path, compat: Any) -> None:
    """An own copy of the keypoints is the same to the bit, whatever is asked for."""
    tree = own(tmp_path)
    joints = np.concatenate([tree.columns["openpose"], tree.columns["part"]], 1)
    tree.save(copy=joints, copy3d=tree.columns["S"], smpl_pose=tree.columns["pose"])
    keep = "copy:points2d=spin49,copy3d:points3d=spin,smpl_pose"
    assert tree.build("--keep", keep).code == 0
    options = RenderOptions() if compat == "sharp" else RenderOptions(compat="refit")
    for sample, one in itertools.product(samples_of(tree.out), CASES):
        item = render(sample, one, options)
        for name, twin in (("copy", "keypoints"), ("copy3d", "pose_3d"), ("smpl_pose", "pose")):
            assert item[name].numpy().tobytes() == item[twin].numpy().tobytes()


def test_own_joints_turn_and_flip_as_the_pixels_do(marked: OwnSet) -> None:
    """The place of each disc, back in units of the box, is its joint's x and y; z stays."""
    for one, row, item in all_cases(marked):
        points = (item["marks"].numpy()[:, :2] + 1) * 128 - 0.5
        back = (points - 127.5) / 256 * one.sc
        joints = item["joints"].numpy()
        assert joints.dtype == np.float64
        assert np.abs(joints[:, :2] - back).max() * 200 * row["scale"] < 2.5, "source px"
        order = FLIP if one.flip else list(range(MARKS))
        assert np.array_equal(joints[:, 2], row["joints"][order, 2])
        assert np.array_equal(item["touch"].numpy(), row["touch"][order])


def expected(pose: Floats, names: list[str], roots: set[int], one: Augmentation) -> Floats:
    """Rotation matrices of joints: roots turned in the image plane, then all mirrored."""
    before = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()
    turn = Rotation.from_euler("z", -one.rot, degrees=True).as_matrix()
    turned = np.array([turn @ m if i in roots else m for i, m in enumerate(before)])
    if not one.flip:
        return turned
    partners = [names.index(other_side(name)) for name in names]
    return np.asarray(MIRROR @ turned[partners] @ MIRROR)


def test_own_rotations_follow_their_bodies(marked: OwnSet) -> None:
    """SMPL-X's 55 joints with one root, and two hands with one root each."""
    for one, row, item in all_cases(marked):
        for name, joints, roots in (
            ("smplx_pose", JOINTS["smplx"], {0}),
            ("hands", JOINTS["mano_pair"], {0, 16}),
        ):
            found = item[name].numpy()
            assert found.shape == row[name].shape
            matrices = Rotation.from_rotvec(found.reshape(-1, 3).astype(np.float64)).as_matrix()
            wanted = expected(row[name], joints, roots, one)
            np.testing.assert_allclose(matrices, wanted, atol=1e-5)


def test_what_does_not_move_stays(marked: OwnSet) -> None:
    for _, row, item in all_cases(marked):
        assert np.array_equal(item["still"].numpy(), row["still"].astype(np.float32))
        assert item["word"] == "läuft"
        assert all(bool(item[f"has_{name}"]) for name in ("still", "word", "marks", "hands"))


# ------------------------------------------------------------------------------- the stream


def loader(sources: dict[str, Any], **options: Any) -> StreamingLoader:
    """A small stream of equal ratios."""
    alone = {"num_workers": 0, "rank": 0, "world_size": 1}
    given = {"batch_size": 8, "res": 32, "epoch_samples": 24, **alone, **options}
    share = 1 / len(sources)
    return StreamingLoader({n: (p, share) for n, p in sources.items()}, StreamOptions(**given))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``one`` has words and ears, ``other`` ears and touch, ``bare`` nothing."""
    folder = tmp_path_factory.mktemp("sets")
    keeps = {"one": "word,ears:points2d=coco", "other": "ears:points2d=coco,touch", "bare": ""}
    rng = np.random.default_rng(1)
    for name, keep in keeps.items():
        tree = own(folder / name)
        ears = rng.uniform(1, 60, (6, 17, 3))
        ears[0, 0] = np.nan
        word = np.array(["a", "bb", "ccc", "", "é", "f"])
        tree.save(word=word, ears=ears, touch=rng.integers(1, 9, (6, 2), np.uint16))
        assert tree.build(*(["--keep", keep] if keep else [])).code == 0
    return {name: folder / name / "shards/own" for name in keeps}


def test_a_source_that_lacks_a_label_gives_zeros_and_says_so(sets: dict[str, Path]) -> None:
    stream = loader(dict(sets), batch_size=30, epoch_samples=30)
    (batch,) = stream
    keys = list(batch)
    assert keys[keys.index("dataset_name") + 1 :] == [
        *("word", "has_word", "ears", "has_ears", "touch", "has_touch")
    ]
    for row, name in enumerate(batch["dataset_name"]):
        has = {"one": ("word", "ears"), "other": ("ears", "touch"), "bare": ()}[name]
        assert [bool(batch[f"has_{one}"][row]) for one in ("word", "ears", "touch")] == [
            one in has for one in ("word", "ears", "touch")
        ]
        assert bool(batch["ears"][row].abs().nan_to_num(1).sum() > 0) == ("ears" in has)
        assert bool(batch["touch"][row].sum() > 0) == ("touch" in has)
        assert "word" in has or batch["word"][row] == ""
    assert {*batch["word"]} > {"é", ""}
    assert batch["ears"].isnan().any()
    assert batch["ears"].shape == (30, 17, 3)


def test_the_stream_s_labels_are_those_of_render(sets: dict[str, Path]) -> None:
    """Whatever the number of threads, and after a resume."""
    found = [
        [item for batch in loader(dict(sets), num_workers=workers) for item in items(batch)]
        for workers in (0, 2, 5)
    ]
    assert found[0] == found[1] == found[2]
    first = loader(dict(sets))
    iteration = iter(first)
    next(iteration)
    again = loader(dict(sets))
    again.load_state_dict(first.state_dict())
    assert [item for batch in again for item in items(batch)] == found[0][8:]
    plain = loader({"one": sets["one"]}, augment=False)
    samples = {int(one["source_row"]): one for one in samples_of(sets["one"])}
    batch = next(iter(plain))
    for row, source_row in enumerate(batch["sample_index"].tolist()):
        item = render(samples[source_row], Augmentation(), RenderOptions(res=32))
        assert np.array_equal(item["ears"].numpy(), batch["ears"][row].numpy(), equal_nan=True)
        assert item["word"] == batch["word"][row]


def test_an_evaluation_has_them_in_the_rows_order(sets: dict[str, Path]) -> None:
    options = StreamOptions(batch_size=4, res=32, num_workers=0, rank=0, world_size=1)
    batches = list(EvaluationLoader("one", str(sets["one"]), options))
    assert [word for batch in batches for word in batch["word"]] == ["a", "bb", "ccc", "", "é", "f"]


def test_labels_decide_what_an_item_is(sets: dict[str, Path]) -> None:
    """A state of the same rows with other labels is refused."""
    state = loader({"one": sets["one"]}).state_dict()
    with pytest.raises(UsageError, match=r"sources\.one\.content"):
        loader({"one": sets["bare"]}).load_state_dict(state)


def test_labels_of_one_name_and_two_kinds_are_refused(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    for keep, array in (
        ("ears", np.zeros((6, 17, 3))),
        ("ears:points2d=coco", np.zeros((6, 17, 2))),
    ):
        tree = own(tmp_path / keep[:5] / str(array.shape))
        tree.save(ears=array)
        assert tree.build("--keep", keep).code == 0
        with pytest.raises(UsageError, match=r"second and one both have the label 'ears'"):
            loader({"one": sets["one"], "second": tree.out})


def test_no_key_of_a_batch_can_be_a_label(sets: dict[str, Path]) -> None:
    for image in ("uint8", "normalized"):
        batch = next(iter(loader({"bare": sets["bare"]}, image=image)))
        for key in batch:
            assert key in RESERVED or key in FIELD or key.startswith("has_"), key


# ----------------------------------------------------------------------------------- the tars


def tar_items(folder: Path, labels_of: Any, policy: AugmentationPolicy | None = None) -> list[Any]:
    """Items of a set's tars."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    make = webdataset_item(policy, options=RenderOptions(res=32), labels=labels_of)
    return [make(sample) for sample in wds.WebDataset(urls, shardshuffle=False).decode()]


def test_items_of_the_tars_alone_have_the_labels_that_are_asked_for(sets: dict[str, Path]) -> None:
    data_set = ShardSet.open(str(sets["one"]))
    for number, item in enumerate(tar_items(sets["one"], data_set.own)):
        wanted = render(data_set[number], Augmentation(), RenderOptions(res=32))
        assert np.array_equal(item["ears"].numpy(), wanted["ears"].numpy(), equal_nan=True)
        assert item["word"] == wanted["word"]
    assert not {"ears", "word", "has_ears"} & set(tar_items(sets["one"], ())[0])
    for item in tar_items(sets["bare"], data_set.own):
        assert not item["has_ears"]
        assert item["ears"].shape == (17, 3)
        assert item["word"] == ""
    two = [*data_set.own, *ShardSet.open(str(sets["other"])).own[1:]]
    assert not tar_items(sets["one"], two)[0]["has_touch"]
    wrong = [replace(data_set.own[1], shape=(17, 2))]
    with pytest.raises(UsageError, match=r"'ears' is float32\[17, 3\], not"):
        tar_items(sets["one"], wrong)


def test_a_stream_goes_on_after_labels_were_added(tmp_path: Path) -> None:
    """The same rows and images, with the new labels, where that is meant; not of other rows."""
    tree = own(tmp_path, rows=12)
    assert tree.build("--samples-per-shard", 5).code == 0
    options = StreamOptions(batch_size=3, res=16, num_workers=0, rank=0, world_size=1)

    def loader() -> StreamingLoader:
        return StreamingLoader({"own": (str(tree.out), 1.0)}, options)

    begun = loader()
    iterator = iter(begun)
    next(iterator)
    state = begun.state_dict()
    expected = [item for batch in iterator for item in items(batch)]
    np.savez(tmp_path / "labels.npz", contact=np.arange(12))
    added = refit("add-labels", tree.out, tmp_path / "labels.npz", "--keep", "contact")
    assert added.code == 0, added.err
    resumed = loader()
    with pytest.raises(
        UsageError, match=r"own\.labels is .*not rows or images.*changed=\('labels',\)"
    ):
        resumed.load_state_dict(state)
    resumed.load_state_dict(state, changed=("labels",))
    batches = list(resumed)
    for batch in batches:
        assert torch.equal(batch.pop("contact"), batch["sample_index"])
        del batch["has_contact"]
    assert [item for batch in batches for item in items(batch)] == expected
    assert tree.build("--samples-per-shard", 4, "--overwrite").code == 0
    with pytest.raises(UsageError, match=r"own\.content is "):
        loader().load_state_dict(state, changed=("labels",))
