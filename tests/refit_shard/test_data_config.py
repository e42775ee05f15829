"""``data_config.py``: which one is taken, and what is said of what is not filled in."""

from pathlib import Path

import pytest

from refit_shard.converter.annotations.datasets import DATASETS
from refit_shard.data_folder import find_data_config
from refit_shard.shards_spec.errors import UsageError
from tests.small import PROJECT, Own, error_line, index_rows, own, refit

REFIT = """
from os.path import join
{roots}
DATASET_NPZ_PATH = 'data/dataset_extras'

DATASET_FILES = [ {{'3dpw_test': join(DATASET_NPZ_PATH, '3dpw_test.npz'),
                   '3dpw_test_sub': join(DATASET_NPZ_PATH, '3dpw_test_sub.npz'),
                  }},

                  {{'coco': join(DATASET_NPZ_PATH, 'coco_2014_eft.npz'),
                   'bedlam': join(DATASET_NPZ_PATH, 'bedlam_train.npz'),
                  }}
                ]

DATASET_FOLDERS = {{'coco': COCO_ROOT, '3dpw_test': PW3D_ROOT, 'bedlam': BEDLAM_ROOT}}

PASCAL_OCCLUDERS = 'data/dataset_extras/pascal_occluders.pkl'
JOINT_REGRESSOR_TRAIN_EXTRA = 'data/smpl/J_regressor_extra.npy'
SMPL_MODEL_DIR = 'data/smpl'
"""
ROOTS = ("COCO_ROOT", "PW3D_ROOT", "BEDLAM_ROOT", "H36M_ROOT", "MPII_ROOT", "AGORA_ROOT")


def write_config(folder: Path, **roots: object) -> Path:
    """ReFit's own file with some roots filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {str(roots.get(name, ''))!r}" for name in ROOTS]
    path = folder / "data_config.py"
    path.write_text(REFIT.format(roots="\n".join(lines)))
    return path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    """COCO as ReFit has it, in the current folder; no variable of the environment is set."""
    for dataset in DATASETS.values():
        monkeypatch.delenv(dataset.root_variable, raising=False)
    tree = own(tmp_path / "coco")
    extras = tmp_path / "data/dataset_extras"
    extras.mkdir(parents=True)
    (extras / "coco_2014_eft.npz").write_bytes(tree.npz.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tree


BUILD = ("build", "--dataset", "coco", "--workers", 0)


def test_refit_s_own_file_in_the_current_folder_works_unchanged(tree: Own, tmp_path: Path) -> None:
    write_config(tmp_path, COCO_ROOT=tree.root)
    assert refit(*BUILD).code == 0
    assert len(index_rows(tmp_path / "data/shards/coco")) == 6
    assert refit("verify", "data/shards").code == 0


def test_a_root_relative_to_the_file_s_folder_works_from_elsewhere(
    tree: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, COCO_ROOT=tree.root.relative_to(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert refit(*BUILD, "--data-config", config).code == 0
    assert len(index_rows(elsewhere / "data/shards/coco")) == 6


def test_a_given_file_comes_before_the_current_folder_s(tree: Own, tmp_path: Path) -> None:
    nowhere = error_line(refit(*BUILD))
    assert f"no data_config.py: looked for {tmp_path / 'data_config.py'};" in nowhere
    assert "--data-config PATH" in nowhere
    here = write_config(tmp_path, COCO_ROOT="/nowhere/here")
    assert find_data_config(None).path == here
    given = write_config(tmp_path / "given", COCO_ROOT="/nowhere/given")
    assert find_data_config(str(given)).path == given
    (tmp_path / "given/data").symlink_to(tmp_path / "data")
    assert "'/nowhere/given'" in error_line(refit(*BUILD, "--data-config", given))
    assert "'/nowhere/here'" in error_line(refit(*BUILD))
    assert tree.root.is_dir()


def test_the_environment_overrides_a_root(
    tree: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, COCO_ROOT="/nowhere")
    monkeypatch.setenv("COCO_ROOT", str(tree.root))
    assert refit(*BUILD).code == 0
    monkeypatch.setenv("COCO_ROOT", "/nowhere/else")
    line = error_line(refit(*BUILD, "--out", tmp_path / "other"))
    assert "environment variable COCO_ROOT" in line
    assert "'/nowhere/else'" in line


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_root_or_a_missing_npz_names_variable_file_and_what_to_put_there(
    tree: Own, tmp_path: Path, name: str
) -> None:
    config = tmp_path / "data_config.py"
    config.write_text((PROJECT / "data_config.py").read_text())
    result = refit("build", "--dataset", name, "--workers", 0)
    assert result.code == 2
    line = error_line(result)
    assert str(config) in line
    assert tree.root.is_dir()
    if name == "coco":
        assert "COCO_ROOT is empty in" in line
        assert "set it to the folder that holds the images of 'coco'" in line
        assert "https://cocodataset.org" in line
    else:
        assert f"{tmp_path}/data/dataset_extras/" in line
        assert f"annotations of {name!r}: put the npz there or change the entry" in line
    assert not (tmp_path / "data/shards").exists()


def test_a_root_that_is_a_file_and_an_entry_that_is_not_there(tree: Own, tmp_path: Path) -> None:
    config = write_config(tmp_path, COCO_ROOT=tree.npz)
    result = refit(*BUILD)
    assert result.code == 2
    assert "which is not a folder" in error_line(result)
    assert str(config) in error_line(result)
    result = refit("build", "--dataset", "h36m", "--workers", 0)
    assert result.code == 2
    assert "has no entry for 'h36m': add its npz" in error_line(result)


@pytest.mark.parametrize(
    "text", ["import nothing_of_this_name", "x = 1 / 0", "def f(:", "\0", "raise SystemExit"]
)
def test_a_file_that_does_not_run_is_one_line(tree: Own, tmp_path: Path, text: str) -> None:
    (tmp_path / "data_config.py").write_text(text)
    result = refit(*BUILD)
    assert result.code == 2
    assert f"{tmp_path / 'data_config.py'}: does not run:" in error_line(result)
    assert tree.root.is_dir()


@pytest.mark.parametrize(
    "text",
    ["", "DATASET_FILES = None", "DATASET_FILES = [1, 2]", "DATASET_FILES = [{'coco': None}]"],
)
def test_a_file_without_the_names_is_one_line(tree: Own, tmp_path: Path, text: str) -> None:
    (tmp_path / "data_config.py").write_text(text)
    result = refit(*BUILD)
    assert result.code == 2
    assert str(tmp_path / "data_config.py") in error_line(result)
    assert tree.root.is_dir()


def test_a_missing_file_is_said(tree: Own) -> None:
    with pytest.raises(UsageError, match=r"--data-config nowhere\.py: no such file"):
        find_data_config("nowhere.py")
    assert tree.root.is_dir()


def test_the_project_s_file_names_every_registered_data_set() -> None:
    names = find_data_config(str(PROJECT / "data_config.py")).names
    listed = {name for split in names["DATASET_FILES"] for name in split}
    assert listed == set(names["DATASET_FOLDERS"]) == set(DATASETS)
    for dataset in DATASETS.values():
        assert names[dataset.root_variable] == ""
