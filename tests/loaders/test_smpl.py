"""SMPL: meshes against skinning written out, users' file layouts, hostile files."""

import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from refit_shard.body_models.smpl import read_model
from refit_shard.loaders.refit.bodies import Bodies, find_models, h36m_regressor
from refit_shard.shards_spec.errors import SourceError, UsageError
from tests.loaders.body_model import VERTICES, licensed_bytes, make_body, skin, write_bodies


def test_meshes_equal_skinning_written_out(tmp_path: Path) -> None:
    """Each row by its gender's model; joints and vertices from the regressed pelvis."""
    bodies = write_bodies(tmp_path)
    opened = Bodies.open(str(tmp_path), str(tmp_path / "J_regressor_h36m.npy"))
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.4, (5, 72)).astype(np.float32)
    betas = rng.normal(0, 1.0, (5, 10)).astype(np.float32)
    gender = np.array([0, 1, -1, 1, 0])
    joints, vertices = opened.joints_and_vertices(*map(torch.from_numpy, (pose, betas, gender)))
    assert joints.shape == (5, 17, 4)
    assert vertices.shape == (5, VERTICES, 3)
    regressor = np.load(tmp_path / "J_regressor_h36m.npy")
    for row in range(5):
        mesh = skin(bodies[int(gender[row])], pose[row].astype(float), betas[row].astype(float))
        expected = regressor @ mesh
        np.testing.assert_allclose(vertices[row], mesh - expected[:1], atol=2e-5)
        np.testing.assert_allclose(joints[row, :, :3], expected - expected[:1], atol=2e-5)
    assert (joints[:, :, 3] == 1).all()


PICKLES = Path(__file__).parent / "pickles"


def test_licensed_files_are_read_without_chumpy(tmp_path: Path) -> None:
    """Chumpy's array and scipy's sparse matrix give the arrays that they hold."""
    body = make_body(1)
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(licensed_bytes(body))
    found = read_model(path)
    assert found.keys() == body.keys()
    for key, expected in body.items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


@pytest.mark.parametrize(
    ("file", "arrays"),
    [
        ("chumpy_python2_protocol0.pkl", "chumpy_python2.npz"),
        ("chumpy_python2_protocol2.pkl", "chumpy_python2.npz"),
        ("chumpy_python3_protocol2.pkl", "chumpy_python3.npz"),
        ("chumpy_python3_protocol4.pkl", "chumpy_python3.npz"),
    ],
)
def test_what_chumpy_itself_wrote_is_read(file: str, arrays: str) -> None:
    """Made by chumpy 0.70 and scipy, on Python 2.7 (numpy 1.16) and 3.10 (numpy 1.23): five
    vertices; ``v_template`` was part of an expression and so has no changed attributes left.
    """
    found = read_model(PICKLES / file)
    with np.load(PICKLES / arrays) as expected:
        for key, values in found.items():
            np.testing.assert_array_equal(values, expected[key], err_msg=key)
    assert len(found) == 7


@pytest.mark.parametrize("name", ["__builtin__ frozenset", "builtins eval", "__builtin__ getattr"])
def test_a_name_beside_those_of_chumpy_is_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.partition(" ")
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(f"c{module}\n{attribute}\n(]tR.".encode())
    with pytest.raises(SourceError, match="does not need"):
        read_model(path)


def test_a_model_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    """The planted call does not happen."""
    planted = tmp_path / "planted"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (planted,)

    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(pickle.dumps({"v_template": Evil()}))
    with pytest.raises(SourceError, match="does not need"):
        read_model(path)
    assert not planted.exists()


@pytest.mark.parametrize("damage", ["short", "no_key", "flat", "text", "other_body", "shapes"])
def test_damaged_models_are_one_clear_line(tmp_path: Path, damage: str) -> None:
    """Cut, incomplete, misshapen, of another body (SMPL-H has 52 joints), or no model at all."""
    body: dict[str, Any] = make_body(1)
    path = tmp_path / "SMPL_MALE.npz"
    if damage == "no_key":
        del body["weights"]
    if damage == "flat":
        body["weights"] = body["weights"].ravel()
    if damage == "other_body":
        body["weights"] = np.zeros((VERTICES, 52))
    if damage == "shapes":
        body["shapedirs"] = body["shapedirs"][:, :, :9]
    np.savez(path, **body)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:5000])
    if damage == "text":
        path.write_text("not a model")
    with pytest.raises(SourceError) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named_with_where_they_go(tmp_path: Path) -> None:
    """Which models, which folder, and how to go on without."""
    np.savez(tmp_path / "SMPL_MALE.npz", **cast(Any, make_body(1)))
    with pytest.raises(UsageError, match=r"SMPL_FEMALE.*SMPL_NEUTRAL.*eval_joints") as caught:
        find_models(str(tmp_path))
    assert "SMPL_MALE" not in str(caught.value)
    with pytest.raises(UsageError, match="J_regressor_h36m"):
        h36m_regressor(str(tmp_path / "nothing.npy"))
    np.save(tmp_path / "r.npy", np.zeros((4, 5)))
    with pytest.raises(SourceError, match=r"\(17, V\)"):
        h36m_regressor(str(tmp_path / "r.npy"))


def test_a_regressor_of_another_mesh_is_refused_at_once(tmp_path: Path) -> None:
    """Not in the first validation."""
    write_bodies(tmp_path)
    np.save(tmp_path / "r.npy", np.zeros((17, 10475)))
    with pytest.raises(SourceError, match=r"has 6890 vertices, .* regressor is for 10475"):
        Bodies.open(str(tmp_path), str(tmp_path / "r.npy"))
