"""Geometry and losses beyond the stored cases: what holds for any input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ablation.systems.vggt.geometry import normalise, unproject
from ablation.systems.vggt.losses import MIN_QUANTILE_PIXELS, _filtered_mean, camera_loss, depth_loss, point_loss
from ablation.systems.vggt.pose import decode_pose, encode_pose, quaternion_of, rotation_of

SEEDS = st.integers(0, 2**31 - 1)


def random_pose(rng, count=3):
    rotation = torch.from_numpy(
        Rotation.random(count, random_state=np.random.RandomState(rng.integers(2**31))).as_matrix()
    ).float()
    return torch.cat([rotation, torch.from_numpy(rng.normal(size=(count, 3, 1))).float()], dim=-1)[None]


def intrinsics(count=3, f=40.0):
    return torch.tensor([[f, 0, 14.5], [0, f * 1.1, 11.5], [0, 0, 1]]).repeat(1, count, 1, 1)


@settings(max_examples=50)
@given(SEEDS)
def test_quaternions_agree_with_scipy(seed):
    rotation = random_pose(np.random.default_rng(seed))[0, :, :, :3]
    expected = torch.from_numpy(Rotation.from_matrix(rotation.double().numpy()).as_quat(canonical=True)).float()
    found = quaternion_of(rotation)
    difference = torch.minimum((found - expected).abs().amax(-1), (found + expected).abs().amax(-1))  # w = 0 has two signs
    assert difference.max() < 1e-5
    torch.testing.assert_close(rotation_of(3 * found), rotation, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(SEEDS)
def test_pose_encoding_round_trip(seed):
    extrinsics, k = random_pose(np.random.default_rng(seed)), intrinsics()
    decoded, k_decoded = decode_pose(encode_pose(extrinsics, k, 24, 30), 24, 30)
    torch.testing.assert_close(decoded, extrinsics, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(k_decoded[..., [0, 1], [0, 1]], k[..., [0, 1], [0, 1]], atol=1e-3, rtol=1e-4)


def test_unprojected_points_project_back():
    rng = np.random.default_rng(0)
    extrinsics, k, depths = random_pose(rng), intrinsics(), torch.rand(1, 3, 24, 30) + 1
    points = unproject(depths, k, extrinsics)
    camera = points @ extrinsics[..., None, :, :3].transpose(-1, -2) + extrinsics[..., None, None, :, 3]
    pixels = (camera @ k[..., None, :, :].transpose(-1, -2)) / camera[..., 2:]
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(30.0), indexing="ij")
    torch.testing.assert_close(pixels[..., 0], u.expand(1, 3, -1, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels[..., 1], v.expand(1, 3, -1, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(camera[..., 2], depths, atol=1e-5, rtol=1e-5)


@settings(max_examples=20)
@given(SEEDS, st.floats(0.1, 10))
def test_normalisation_forgets_place_and_unit(seed, scale):
    """Moving the world and changing its unit gives the same ground truth."""
    rng = np.random.default_rng(seed)
    extrinsics, k, depths = (
        random_pose(rng).double(),
        intrinsics().double(),
        torch.rand(1, 3, 24, 30, dtype=torch.float64) + 1,
    )
    masks = torch.rand(1, 3, 24, 30) < 0.7
    plain = normalise(extrinsics, depths, unproject(depths, k, extrinsics), masks)
    motion = random_pose(rng, 1)[0, 0].double()
    moved = torch.cat([extrinsics[..., :3] @ motion[:, :3], extrinsics[..., :3] @ motion[:, 3:] + extrinsics[..., 3:]], dim=-1)
    moved[..., 3] *= scale
    other = normalise(moved, depths * scale, unproject(depths * scale, k, moved), masks)
    torch.testing.assert_close(plain.extrinsics, other.extrinsics, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.depths, other.depths, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        plain.extrinsics[:, 0], torch.eye(4, dtype=torch.float64)[None, :3], atol=1e-6, rtol=0
    )  # poses drawn in fp32


def depth_case(seed=0):
    g = torch.Generator().manual_seed(seed)
    predicted, confidence = torch.rand(1, 2, 40, 50, 1, generator=g) + 0.5, 1 + torch.rand(1, 2, 40, 50, generator=g)
    return (
        predicted,
        confidence,
        torch.rand(1, 2, 40, 50, generator=g) + 0.5,
        torch.rand(1, 2, 40, 50, generator=g) < 0.8,
    )


@pytest.mark.parametrize("quantile", [None, 0.98])
def test_what_lies_under_the_mask_does_not_matter(quantile):
    predicted, confidence, target, masks = depth_case()
    holes = torch.where(masks, target, torch.inf)
    clean, dirty = (depth_loss(predicted, confidence, t, masks, quantile) for t in (target, holes))
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)
    predicted.requires_grad_()
    sum(depth_loss(predicted, confidence, holes, masks, quantile).values()).backward()
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[..., 0][~masks] == 0).all()


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.floats(0.01, 1), st.floats(0.05, 1))
def test_quantile_filter_is_the_mean_below_the_quantile(seed, quantile, valid):
    """Whatever share of the pixels is valid."""
    predicted, confidence, target, masks = depth_case()
    masks = masks & (torch.rand(masks.shape, generator=torch.Generator().manual_seed(seed)) < valid)
    errors = (predicted[..., 0] - target).abs()[masks]
    rank = (quantile * (torch.tensor(len(errors)) - 1)).round().long()
    below = errors[errors < errors.sort().values[rank]]
    expected = (below if len(below) > MIN_QUANTILE_PIXELS else errors).mean()
    torch.testing.assert_close(depth_loss(predicted, confidence, target, masks, quantile)["reg"], expected)


def test_the_quantile_of_a_batch_too_large_for_fp32_to_count():
    """Ranks are rounded there, to one that is five places off."""
    errors = torch.arange(18_641_590, dtype=torch.float32)
    mean = _filtered_mean(errors, torch.ones(len(errors), dtype=torch.bool), 0.9)
    assert mean == pytest.approx(0.45 * len(errors), rel=1e-5)


def test_a_depth_beyond_the_limit_counts_as_the_limit():
    """As in the release: a scene's far background, normalised, does not rule the loss."""
    predicted, confidence, masks = 90 + torch.rand(1, 2, 24, 30, 1), 1 + torch.rand(1, 2, 24, 30), torch.ones(1, 2, 24, 30) > 0
    far = 90 + 60 * torch.rand(1, 2, 24, 30)
    found, expected = (depth_loss(predicted, confidence, depth, masks, None) for depth in (far, far.clamp(max=100)))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_too_few_pixels_give_no_loss_but_a_gradient():
    predicted, confidence, target, masks = depth_case()
    few = masks & (torch.arange(50) < 1)
    predicted.requires_grad_()
    total = sum(depth_loss(predicted, confidence, target, few, 0.98).values())
    total.backward()
    assert total == 0 and (predicted.grad == 0).all()


def test_window_weight_multiplies_errors_where_it_is_set():
    predicted, confidence, target, masks = depth_case()
    double = depth_loss(predicted, confidence, target, masks, None, torch.full_like(target, 2.0))["reg"]
    torch.testing.assert_close(double, 2 * depth_loss(predicted, confidence, target, masks, None)["reg"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_reach_the_guard(bad):
    predicted, confidence, target, masks = depth_case()
    predicted[0, 0, masks[0, 0].nonzero()[0][0], masks[0, 0].nonzero()[0][1]] = bad
    assert not depth_loss(predicted, confidence, target, masks, None)["reg"].isfinite()


def test_perfect_predictions_cost_nothing():
    rng = np.random.default_rng(3)
    extrinsics, k, depths = random_pose(rng), intrinsics(), torch.rand(1, 3, 24, 30) + 1
    masks = torch.ones(1, 3, 24, 30, dtype=torch.bool)
    truth = normalise(extrinsics, depths, unproject(depths, k, extrinsics), masks)
    encoding = encode_pose(truth.extrinsics, k, 24, 30)
    assert camera_loss([encoding] * 4, truth.extrinsics, k, masks)["camera"] == 0
    depth = depth_loss(truth.depths[..., None], torch.ones_like(depths), truth.depths, masks, 0.98)
    points = point_loss(truth.world_points, torch.ones_like(depths), truth.world_points, masks, 0.98)
    assert max(abs(value) for value in [*depth.values(), points["reg"], points["conf"]]) == 0
    assert points["grad"] < 1e-5


def test_sequences_whose_first_frame_is_empty_do_not_count_for_the_camera():
    rng = np.random.default_rng(4)
    extrinsics = torch.cat([random_pose(rng), random_pose(rng)])
    k, masks = intrinsics().repeat(2, 1, 1, 1), torch.ones(2, 3, 24, 30, dtype=torch.bool)
    masks[1, 0] = False
    encodings = [torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    both = camera_loss(encodings, extrinsics, k, masks)["camera"]
    first = camera_loss([e[:1] for e in encodings], extrinsics[:1], k[:1], masks[:1])["camera"]
    torch.testing.assert_close(both, first)
