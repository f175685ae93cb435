"""Depth and pose metrics are what their names say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablation.systems.vggt.data.regions import DETAIL, PLANAR
from ablation.systems.vggt.metrics import align, constant_depth, depth_metrics, mean_of, pose_auc, pose_errors
from ablation.systems.vggt.pose import rotation_of

TRUTH = torch.tensor([[[2.0, 4.0], [0.0, 5.0]]])  # 0: unknown
REGIONS = torch.tensor([[[PLANAR, PLANAR], [DETAIL, 0]]], dtype=torch.uint8)


def test_depth_metrics_by_hand():
    (row,) = depth_metrics(torch.tensor([[[2.0, 5.0], [9.0, 4.0]]]), TRUTH, REGIONS)
    assert row["depth_mae"] == pytest.approx(2 / 3) and row["depth_rmse"] == pytest.approx(math.sqrt(2 / 3))
    assert row["depth_absrel"] == pytest.approx((1 / 4 + 1 / 5) / 3)
    assert row["depth_delta1"] == pytest.approx(1 / 3)  # 5 / 4 is not below 1.25
    assert row["depth_mae_planar"] == 0.5
    assert "depth_mae_detail" not in row  # its only pixel has no truth


def test_means_leave_out_what_an_image_lacks():
    assert mean_of([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}


@pytest.mark.parametrize("method", ["median", "least_squares"])
@given(scale=st.floats(0.01, 100))
def test_alignment_undoes_a_scale(method, scale):
    found = align(TRUTH * scale, TRUTH, method)
    torch.testing.assert_close(found, TRUTH, rtol=1e-5, atol=0)


def test_without_alignment_nothing_is_scaled():
    assert align(TRUTH * 2, TRUTH, "none").equal(TRUTH * 2)


def test_a_constant_depth_is_the_median_of_what_is_known():
    assert constant_depth(TRUTH).unique().tolist() == [4.0]


def cameras(generator, count=4):
    rotations = rotation_of(torch.randn(count, 4, generator=generator, dtype=torch.float64))
    return torch.cat([rotations, torch.randn(count, 3, 1, generator=generator, dtype=torch.float64)], dim=-1)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_pose_errors_do_not_see_the_choice_of_world(seed, scale):
    """The same cameras in another frame and unit have no error. 1e-4 degrees: arccos near 1 halves the digits."""
    generator = torch.Generator().manual_seed(seed)
    truth = cameras(generator)
    (other,) = cameras(generator, 1)
    rotation = truth[:, :, :3] @ other[:, :3]
    moved = torch.cat([rotation, scale * (truth[:, :, :3] @ other[:, 3:] + truth[:, :, 3:])], dim=-1)
    angles = pose_errors(moved, truth)
    assert all(len(error) == 6 and error.max() < 1e-4 for error in angles)


def test_a_known_rotation_error():
    truth = torch.eye(3, 4).repeat(2, 1, 1)
    truth[1, 0, 3] = 1.0
    wrong, half = truth.clone(), math.radians(10) / 2
    wrong[1, :, :3] = rotation_of(torch.tensor([0.0, 0.0, math.sin(half), math.cos(half)]))
    rotation, translation = pose_errors(wrong, truth)
    assert rotation.item() == pytest.approx(10, abs=1e-4) and translation.item() == pytest.approx(0, abs=1e-4)
    assert pose_auc(rotation, translation) == pytest.approx({"pose_auc5": 0.0, "pose_auc30": 20 / 30})
