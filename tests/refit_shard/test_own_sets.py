"""Data sets of one's own, declared in the training YAML or in data_config.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refit_shard import ShardSet, StreamingLoader
from refit_shard.converter.annotations.datasets import DATASETS
from refit_shard.own_sets import parse_own_sets, python_section, yaml_section
from refit_shard.shards_spec.errors import UsageError
from tests.searches import examples
from tests.small import Own, encoded, error_line, own, picture, refit, samples_of

ROWS = 12


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the datasets ``cats`` and ``dogs``."""
    for dataset in DATASETS.values():
        monkeypatch.delenv(dataset.root_variable, raising=False)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("cats", "dogs")):
        tree = own(tmp_path / name, rows=ROWS)
        tree.save(tail=np.full((ROWS, 2), seed + 1.0), smplx_pose=np.ones((ROWS, 165)))
    return tmp_path


def entry(home: Path, name: str, **more: Any) -> dict[str, Any]:
    """An entry with absolute places."""
    return {"npz": str(home / name / "own.npz"), "root": str(home / name / "frames"), **more}


def write_yaml(home: Path, sets: Any, names: tuple[str, ...] = ("cats", "dogs")) -> Path:
    """A training YAML in a folder of its own."""
    content = {
        "DATASET": {"LIST": list(names), "PARTITION": [1 / len(names)] * len(names)},
        "TRAIN": {"BATCH_SIZE": 4},
        "datasets": sets,
    }
    path = home / "configs" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


BUILD = ("build", "--workers", 0)


def test_a_yaml_alone_builds_and_trains(home: Path) -> None:
    """No data_config.py; places relative to the YAML; a label that one set has and one has not."""
    config = write_yaml(
        home,
        {
            "cats": {"npz": "../cats/own.npz", "root": "../cats/frames", "keep": "tail:points2d"},
            "dogs": entry(home, "dogs", use_pose_3d=False),
        },
    )
    doctor = refit("doctor", "--config", config)
    assert "ok    cats           frames" in doctor.out
    assert "ok    cats           keep             carried along: tail float32[2]" in doctor.out
    assert f"datasets.dogs.root of {config} is {home}/dogs/frames" in doctor.out
    built = refit(*BUILD, "--config", config)
    assert built.code == 0, built.err
    assert "cats: kept tail float32[2] (points2d)" in built.err
    assert refit("verify", "data/shards").code == 0
    assert ShardSet.open("data/shards/dogs").manifest.dataset == "dogs"
    assert not any(one["has_pose_3d"] for one in samples_of("data/shards/dogs"))
    loader = StreamingLoader.from_config(
        config, num_workers=0, res=32, rank=0, world_size=1, epoch_samples=8
    )
    for batch in loader:
        for name, has in zip(batch["dataset_name"], batch["has_tail"].tolist(), strict=True):
            assert has == (name == "cats")
    assert refit("simulate", config, "--cache", "1GB").code == 0


def test_a_data_config_declares_sets_beside_refit_s_names(home: Path) -> None:
    (home / "data_config.py").write_text(
        "from os.path import join\n"
        "COCO_ROOT = ''\nDATASET_FILES = [{}, {}]\n"
        "DATASETS = {'cats': {'npz': join('cats', 'own.npz'), 'root': 'cats/frames',"
        " 'keep': ['tail', 'smplx_pose']}}\n"
    )
    assert "ok    cats" in refit("doctor").out
    built = refit(*BUILD, "--dataset", "cats")
    assert built.code == 0, built.err
    assert [one.name for one in ShardSet.open("data/shards/cats").own] == ["tail", "smplx_pose"]
    config = write_yaml(home, None, ("cats",))
    again = refit(*BUILD, "--config", config, "--json")
    assert json.loads(again.out)["built"][0]["kept_shards"] == 1
    other = refit(*BUILD, "--dataset", "cats", "--keep", "tail:points2d")
    assert other.code == 2, "the call's goes before the entry's"
    assert "with other columns" in error_line(other)


def test_traits_do_what_they_say(home: Path) -> None:
    """Turned frames, names remapped; the same set without them is another build."""
    tree = Own(home / "birds", [f"closeup/{row}.png" for row in range(6)])
    tree.save(img_center=np.tile([360.0, 640.0], (6, 1)), img_focal=np.full(6, 900.0))
    for row in range(6):
        (tree.root / f"closeup/{row}.png").unlink()
        tree.put(f"closeup/{row}.jpg", encoded(".jpg", picture(row, 1280, 720)))
    traits = {"turned": "bedlam-closeup", "remaps": ["*.png=*.jpg"], "page": "https://birds"}
    config = write_yaml(home, {"birds": entry(home, "birds", **traits)}, ("birds",))
    built = refit(*BUILD, "--config", config)
    assert built.code == 0, built.err
    for sample in samples_of("data/shards/birds"):
        assert sample["orig_shape"].tolist() == [1280, 720]
        assert sample["imgname"].endswith(".png")
    config = write_yaml(home, {"birds": entry(home, "birds", remaps="*.png=*.jpg")}, ("birds",))
    other = refit(*BUILD, "--config", config, "--skip-checks")
    assert "with frames turned by the rule bedlam-closeup, not never" in error_line(other)


def test_a_cropped_set_of_one_s_own_is_stored_as_it_is(home: Path) -> None:
    tree = own(home / "crops", rows=4)
    config = write_yaml(home, {"crops": entry(home, "crops", cropped=True)}, ("crops",))
    assert refit(*BUILD, "--config", config, "--skip-checks").code == 0
    data_set = ShardSet.open("data/shards/crops")
    assert not data_set.manifest.envelope.rotation
    assert bytes(data_set[0].jpeg) == (tree.root / str(data_set[0]["imgname"])).read_bytes()


def test_a_registered_set_may_be_given_labels(home: Path) -> None:
    (home / "data_config.py").write_text(
        "COCO_ROOT = 'cats/frames'\nDATASET_FILES = [{}, {'coco': 'cats/own.npz'}]\n"
        "DATASETS = {'coco': {'keep': 'smplx_pose'}}\n"
    )
    assert refit(*BUILD, "--dataset", "coco").code == 0
    data_set = ShardSet.open("data/shards/coco")
    assert [one.name for one in data_set.own] == ["smplx_pose"]
    assert not data_set[0]["has_pose_3d"], "its own traits stay"


def test_one_of_a_config_s_sets_can_be_built_alone(home: Path) -> None:
    sets = {"cats": entry(home, "cats"), "dogs": entry(home, "dogs")}
    config = write_yaml(home, sets)
    assert refit(*BUILD, "--config", config, "--dataset", "dogs").code == 0
    assert sorted(path.name for path in (home / "data/shards").iterdir()) == ["dogs"]


def test_of_several_sets_those_keep_a_label_that_have_it(home: Path) -> None:
    tree = Own(home / "fish", ["a/0.jpg", "a/1.jpg"])
    tree.save(fin=np.arange(2))
    sets = {name: entry(home, name) for name in ("cats", "dogs", "fish")}
    config = write_yaml(home, sets, ("cats", "dogs", "fish"))
    assert refit(*BUILD, "--config", config, "--keep", "tail,fin").code == 0
    found = {n: [one.name for one in ShardSet.open(f"data/shards/{n}").own] for n in sets}
    assert found == {"cats": ["tail"], "dogs": ["tail"], "fish": ["fin"]}
    typo = refit(*BUILD, "--config", config, "--keep", "tial")
    assert typo.code == 2
    assert "keep 'tial': no npz of these datasets has it" in error_line(typo)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([], "datasets must hold an entry for each dataset of your own, got []"),
        ({"cats": None}, "datasets.cats: must hold npz and root, got None"),
        ({"cats": {"npz": "a"}}, "datasets.cats.root is missing"),
        ({"cats": {"root": "a"}}, "datasets.cats.npz is missing"),
        ({"Cats!": {}}, "datasets: dataset name 'Cats!'"),
        ({5: {}}, "datasets: 5: a name must be a text"),
        ({"../up": {}}, "datasets: dataset name '../up'"),
        ({"bedlam": {"npz": "a", "root": "b"}}, "datasets.bedlam.npz: 'bedlam' is a registered"),
        ({"bedlam": {"cropped": True}}, "datasets.bedlam.cropped: 'bedlam' is a registered"),
        (
            {"cats": {"npz": "a", "root": "b", "roots": 1}},
            "datasets.cats.roots is no key of a dataset",
        ),
        ({"cats": {"npz": 3, "root": "b"}}, "datasets.cats.npz: must be a path"),
        ({"cats": {"npz": "", "root": "b"}}, "datasets.cats.npz is empty"),
        ({"cats": {"npz": "a", "root": "b", "cropped": "no"}}, "datasets.cats.cropped: must be"),
        (
            {"cats": {"npz": "a", "root": "b", "turned": "left"}},
            "datasets.cats.turned: must be one",
        ),
        ({"cats": {"npz": "a", "root": "b", "page": 3}}, "datasets.cats.page: must be a text"),
        ({"cats": {"npz": "a", "root": "b", "remaps": ["x"]}}, "datasets.cats.remaps: --remap 'x'"),
        ({"cats": {"npz": "a", "root": "b", "keep": 3}}, "datasets.cats.keep: must be a list"),
        ({"cats": {"npz": "a", "root": "b", "keep": "pose"}}, "datasets.cats.keep: keep 'pose'"),
    ],
)
def test_an_error_names_the_key(home: Path, sets: Any, said: str) -> None:
    result = refit(*BUILD, "--config", write_yaml(home, sets))
    assert result.code == 2
    assert f"mine.yaml: {said}" in error_line(result)
    assert refit("doctor", "--config", write_yaml(home, sets)).code == 2
    assert not (home / "data").exists()


def test_an_error_in_python_is_in_python_s_words(home: Path) -> None:
    (home / "data_config.py").write_text("DATASETS = {'cats': {'npz': 'a'}}\n")
    line = error_line(refit(*BUILD, "--dataset", "cats"))
    assert f"{home}/data_config.py: DATASETS['cats']['root'] is missing" in line


def test_what_is_not_there_is_said_with_its_entry(home: Path) -> None:
    config = write_yaml(
        home, {"cats": {"npz": "no.npz", "root": "no"}, "dogs": entry(home, "dogs")}
    )
    line = error_line(refit(*BUILD, "--config", config, "--dataset", "cats"))
    assert f"{home}/configs/no.npz: missing; {config}: datasets.cats names it as its npz" in line
    doctor = refit("doctor", "--config", config)
    assert doctor.code == 1
    assert f"datasets.cats.root of {config} is" in doctor.out
    assert "which is not a folder -> set it to the folder" in doctor.out


def test_a_name_is_declared_once_and_others_are_not_known(home: Path) -> None:
    sets = {"cats": entry(home, "cats"), "dogs": entry(home, "dogs")}
    config = write_yaml(home, sets, ("cats", "dogs", "birds"))
    unknown = refit(*BUILD, "--config", config)
    assert unknown.code == 2
    assert "unknown dataset 'birds'; known: coco" in error_line(unknown)
    assert "agora, bedlam, cats, dogs. For your own" in error_line(unknown)
    (home / "data_config.py").write_text(f"DATASETS = {sets!r}\n")
    twice = refit(*BUILD, "--config", config)
    assert twice.code == 2
    assert "datasets.cats: " in error_line(twice)
    assert "DATASETS['cats'] declares the same name; remove one" in error_line(twice)


def test_a_registered_set_still_needs_the_data_config(home: Path) -> None:
    config = write_yaml(home, {"cats": entry(home, "cats")}, ("cats", "coco"))
    line = error_line(refit(*BUILD, "--config", config))
    assert "no data_config.py: looked for" in line


def test_the_loader_s_message_for_a_set_that_is_not_built_works(home: Path) -> None:
    config = write_yaml(home, {"cats": entry(home, "cats")}, ("cats",))
    with pytest.raises(UsageError, match=r"refit-shard build --dataset cats, with the --config"):
        StreamingLoader.from_config(config, num_workers=0, rank=0, world_size=1)
    assert refit(*BUILD, "--config", config, "--dataset", "cats").code == 0


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["npz", "root", "keep", "remaps", "turned", "cropped", "page"])


@settings(max_examples=examples(200))
@example(content={"cats": {"\n": None}})
@given(
    content=ANY
    | st.dictionaries(
        st.sampled_from(["cats", "bedlam", "x y"]), ANY | st.dictionaries(KEYS, ANY), max_size=2
    )
)
def test_any_section_is_read_or_refused_in_one_line(content: Any) -> None:
    for section in (yaml_section(Path("/a/b.yaml")), python_section(Path("/a/b.py"))):
        try:
            found = parse_own_sets(content, section)
        except UsageError as error:
            line = str(error)
            assert "\n" not in line.replace("\\n", "")
            assert len(line) < 1000
        else:
            assert all(name == one.dataset.name for name, one in found.items())
