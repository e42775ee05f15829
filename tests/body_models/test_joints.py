"""SPIN's joints of SMPL bodies, without their meshes, against meshes skinned vertex by vertex."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import smplx
import torch

from refit_shard.body_models.joints import SpinJoints
from refit_shard.shards_spec.errors import SourceError
from tests.converter.importers.joints_reference import extra_regressor, spin_joints
from tests.loaders.body_model import JOINTS, make_body, rodrigues


def rotations_of(pose: Any) -> Any:
    """Rotation matrices (n, 24, 3, 3) of axis-angle poses (n, 72)."""
    vectors = pose.reshape(-1, JOINTS, 3)
    return np.array([[rodrigues(vector) for vector in row] for row in vectors])


def test_joints_equal_those_of_the_skinned_mesh() -> None:
    body, extra = make_body(3), extra_regressor(4)
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.5, (6, 72)), rng.normal(0, 1, (6, 10))
    pose[0] = 0
    found = SpinJoints.of(body, extra, "body")(rotations_of(pose), betas)
    assert found.shape == (6, 24, 3)
    for row in range(6):
        expected = spin_joints(body, extra, pose[row], betas[row])
        np.testing.assert_allclose(found[row], expected, atol=1e-9)


# What SPIN's JOINT_MAP gives for its 24: among SMPL's 24 joints, the 21 vertices that smplx adds,
# and the 9 rows of J_regressor_extra behind them.
OF_SMPLX = (
    *(8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20),
    *(47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27),
)


def test_joints_equal_those_of_smplx_as_refit_s_model_takes_them() -> None:
    body, extra = make_body(7), extra_regressor(8)
    data = SimpleNamespace(**body)
    model = smplx.SMPL(model_path="", data_struct=data, batch_size=1, create_transl=False)
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.4, (5, 72)), rng.normal(0, 1, (5, 10))
    single = torch.from_numpy(pose).float()
    with torch.no_grad():
        out = model(
            global_orient=single[:, :3],
            body_pose=single[:, 3:],
            betas=torch.from_numpy(betas).float(),
        )
    regressed = np.einsum("jv,nvc->njc", extra, out.vertices.numpy())
    expected = np.concatenate([out.joints.numpy(), regressed], axis=1)[:, OF_SMPLX]
    found = SpinJoints.of(body, extra, "body")(rotations_of(pose), betas)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_row_s_joints_do_not_depend_on_the_other_rows() -> None:
    joints = SpinJoints.of(make_body(3), extra_regressor(4), "body")
    rng = np.random.default_rng(1)
    pose, betas = rotations_of(rng.normal(0, 0.5, (5, 72))), rng.normal(0, 1, (5, 10))
    together = joints(pose, betas)
    for row in range(5):
        alone = joints(pose[row : row + 1], betas[row : row + 1])[0]
        np.testing.assert_allclose(alone, together[row], atol=1e-12)
    assert joints(pose[:0], betas[:0]).shape == (0, 24, 3)


def test_more_betas_than_ten_in_the_model_change_nothing() -> None:
    body, extra = make_body(3), extra_regressor(4)
    longer = {**body, "shapedirs": np.concatenate([body["shapedirs"]] * 2, axis=2)}
    pose, betas = rotations_of(np.full((1, 72), 0.1)), np.ones((1, 10))
    one = SpinJoints.of(body, extra, "body")(pose, betas)
    np.testing.assert_array_equal(SpinJoints.of(longer, extra, "body")(pose, betas), one)


def test_a_regressor_of_another_mesh_is_refused() -> None:
    with pytest.raises(SourceError, match=r"has 6890 vertices, J_regressor_extra is for 10475"):
        SpinJoints.of(make_body(3), np.zeros((9, 10475)), "body")


@pytest.mark.parametrize("parent", [24, 5, -1, 2**40])
def test_a_tree_that_is_none_is_refused(parent: int) -> None:
    body = make_body(3)
    body["kintree_table"][0, 5] = parent
    with pytest.raises(SourceError, match="not a tree"):
        SpinJoints.of(body, extra_regressor(4), "body")
