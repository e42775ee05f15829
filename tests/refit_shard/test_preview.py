"""Contact sheets of several datasets, of chosen rows, and under a policy."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from refit_shard import ShardSet
from refit_shard.sheet import draw_sample
from tests.small import Own, error_line, refit

SIDE, HEIGHT = 256, 274  # of a cell, with its line of text
STILL = "rot_sigma: 0, scale_sigma: 0, flip: 0, colour: 0, occlude: 0"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, of six rows and of two."""
    folder = tmp_path_factory.mktemp("preview")
    for name, rows in (("large", 6), ("little", 2)):
        tree = Own(folder / name, [f"a/{row}.jpg" for row in range(rows)])
        what = ["build", "--npz", tree.npz, "--root", tree.root, "--name", name]
        assert refit(*what, "--out", folder / "shards", "--workers", 0).code == 0
    return folder / "shards"


def sheet(out: Path) -> NDArray[Any]:
    """A sheet's cells, (rows, columns, HEIGHT, SIDE, 3) RGB."""
    picture = cv2.imread(str(out))
    assert picture is not None
    rows, columns = picture.shape[0] // HEIGHT, picture.shape[1] // SIDE
    cells = picture[:, :, ::-1].reshape(rows, HEIGHT, columns, SIDE, 3)
    return cells.transpose(0, 2, 1, 3, 4)


def config(folder: Path, policy: str) -> Path:
    path = folder / "config.yaml"
    lists = "DATASET: {LIST: [large], PARTITION: [1.0]}\n"
    path.write_text(f"{lists}IMG_RES: 64\naugmentation: {{{policy}}}\n")
    return path


def test_several_sets_share_a_sheet(shards: Path, tmp_path: Path) -> None:
    """As equally as they have rows; each cell is one of their samples."""
    out = tmp_path / "sheet.png"
    result = refit("preview", shards / "large", shards / "little", "--n", 5, "--out", out)
    assert result.out == f"{out}: 5 samples of {shards / 'large'}, {shards / 'little'}\n"
    cells = list(sheet(out)[0])
    large, little = (ShardSet.open(shards / name) for name in ("large", "little"))
    drawn = [draw_sample(large[at]) for at in range(6)]
    assert sum(any(np.array_equal(cell, one) for one in drawn) for cell in cells) == 3
    for cell, at in zip(cells[3:], range(2), strict=True):
        assert np.array_equal(cell, draw_sample(little[at]))
    assert refit("preview", shards, "--n", 5, "--out", tmp_path / "same.png").code == 0
    assert (tmp_path / "same.png").read_bytes() == out.read_bytes()


def test_a_condition_chooses_what_is_drawn(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    where = "source_row = 1 and dataset = 'little'"
    assert refit("preview", shards, "--where", where, "--out", out).code == 0
    little = ShardSet.open(shards / "little")
    (sample,) = [one for one in (little[0], little[1]) if one["source_row"] == 1]
    assert np.array_equal(sheet(out)[0, 0], draw_sample(sample))
    none = refit("preview", shards, "--where", "scale > 100", "--out", out)
    assert none.code == 2
    assert "holds no samples that meet --where" in error_line(none)


def test_a_policy_draws_each_crop_as_training_sees_it(shards: Path, tmp_path: Path) -> None:
    """A row a sample: as stored, then five draws; of a policy that changes nothing, all alike."""
    out = tmp_path / "sheet.png"
    how = ["preview", shards / "large", "--n", 2, "--out", out, "--policy"]
    assert refit(*how, config(tmp_path, STILL)).code == 0
    still = sheet(out)
    assert still.shape[:2] == (2, 6)
    for row in still:
        assert all(np.array_equal(row[1], other) for other in row[2:])
        assert not np.array_equal(row[0], row[1])
    assert refit(*how, "refit").code == 0
    moved = sheet(out)
    assert np.array_equal(moved[:, 0], still[:, 0])
    flat = moved[:, 1:].reshape(10, -1)
    assert len(np.unique(flat, axis=0)) == 10
    assert refit(*how, config(tmp_path, STILL.replace("flip: 0", "flip: 1"))).code == 0
    picture = slice(0, SIDE)
    mirrored = sheet(out)[0, 1, picture, ::-1].astype(int)
    same = np.abs(mirrored - still[0, 1, picture]).mean()
    assert same < np.abs(mirrored[:, ::-1] - still[0, 1, picture]).mean() / 2


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "give either datasets or --stream YAML"),
        (("{shards}", "--stream", "c.yaml"), "give either datasets or --stream YAML"),
        (("--stream", "c.yaml", "--where", "scale > 1"), "go with datasets, not with --stream"),
        (("--stream", "c.yaml", "--policy", "refit"), "go with datasets, not with --stream"),
        (("{shards}", "--policy", "none.yaml"), "none.yaml: No such file"),
        (("{shards}", "--where", "scal > 1"), "did you mean 'scale'?"),
    ],
)
def test_wrong_use(shards: Path, tmp_path: Path, args: tuple[str, ...], named: str) -> None:
    out = tmp_path / "sheet.png"
    result = refit("preview", *(one.format(shards=shards) for one in args), "--out", out)
    assert result.code == 2
    assert named in error_line(result)
    assert not out.exists()
