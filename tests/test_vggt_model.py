"""The network loads released weights strictly by name, and recomputing activations changes nothing."""

import re

import pytest
import torch
from safetensors.torch import save_file

from ablation.errors import UserError
from ablation.systems.vggt.model import dpt_head
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.weights import load_weights


@pytest.fixture
def released(vggt):
    """A state dict as the release writes it: with a tracking head that we have no use for."""
    return {**vggt.state_dict(), "track_head.tracker.query_ref_token": torch.zeros(1, 2, 8)}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_both_released_files_load(tmp_path, vggt, tiny, released, name):
    path = tmp_path / name
    save_file(released, path) if name.endswith("safetensors") else torch.save(released, path)
    with torch.device("meta"):
        empty = VGGT(tiny)
    load_weights(empty, path)
    assert all(torch.equal(value, vggt.state_dict()[key]) for key, value in empty.state_dict().items())


def test_half_precision_files_load_as_fp32(tmp_path, vggt, tiny, released):
    save_file({name: value.half() for name, value in released.items()}, tmp_path / "model.safetensors")
    fresh = VGGT(tiny)
    load_weights(fresh, tmp_path / "model.safetensors")
    assert {value.dtype for value in fresh.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("depth_head.norm.bias"), ["1 parameters missing in the file", "depth_head.norm.bias"]),
        (
            lambda s: s.update({"depth_head.extra": torch.zeros(1)}),
            ["1 parameters not in the model", "depth_head.extra"],
        ),
        (lambda s: s.update({"depth_head.norm.bias": torch.zeros(3)}), ["of another shape", r"\(3,\)"]),
        (
            lambda s: s.update({"depth_head.norm.bais": s.pop("depth_head.norm.bias")}),
            ["depth_head.norm.bais looks like depth_head.norm.bias"],
        ),
    ],
)
def test_mismatches_are_named(tmp_path, vggt, released, change, words):
    change(released)
    save_file(released, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_weights(vggt, tmp_path / "model.safetensors")
    assert all(re.search(word, str(caught.value)) for word in words), caught.value


def test_unreadable_files_are_named(tmp_path, vggt, released):
    path = tmp_path / "model.safetensors"
    save_file(released, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read as weights"):
        load_weights(vggt, path)
    with pytest.raises(UserError, match="hf download facebook/VGGT-1B"):
        load_weights(vggt, tmp_path / "absent.safetensors")


def test_a_pickle_is_not_executed(tmp_path, vggt):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"depth_head.norm.bias": Evil()}, tmp_path / "model.pt")
    with pytest.raises(UserError):
        load_weights(vggt, tmp_path / "model.pt")


@pytest.mark.parametrize("size", [(28, 28), (28, 56), (42, 28)])
def test_shapes_and_ranges(vggt, size):
    out = vggt(torch.rand(2, 3, 3, *size))
    assert out["pose_enc"].shape == (2, 3, 9) and len(out["pose_enc_list"]) == 4
    assert out["depth"].shape == (2, 3, *size, 1) and out["world_points"].shape == (2, 3, *size, 3)
    assert (out["depth"] > 0).all() and (out["depth_conf"] > 1).all() and (out["pose_enc"][..., 7:] >= 0).all()


def test_only_the_heads_asked_for_run(vggt):
    assert set(vggt(torch.rand(1, 2, 3, 28, 28), heads=("depth",))) == {"depth", "depth_conf"}


def test_frames_are_exchangeable_but_for_the_first(vggt):
    """Global attention has no frame index: swapping later frames swaps their outputs."""
    vggt.eval()
    images = torch.rand(1, 3, 3, 28, 28)
    straight, swapped = vggt(images)["depth"], vggt(images[:, [0, 2, 1]])["depth"]
    torch.testing.assert_close(straight[:, [0, 2, 1]], swapped, atol=1e-5, rtol=1e-4)


def test_each_refinement_of_the_cameras_trains_its_own_step_alone(vggt):
    """The released head cuts the gradient between refinements: the last bias gets 1 of every frame from each of them."""
    frames = 3
    for encoding in vggt.camera_head(torch.randn(1, frames, 6, 64)):
        (gradient,) = torch.autograd.grad(encoding[..., 0].sum(), vggt.camera_head.pose_branch.fc2.bias, retain_graph=True)
        assert gradient[0] == frames


def test_the_dense_head_takes_few_frames_at_a_time(vggt, monkeypatch):
    """The dense head takes a few frames at a time; output and gradients must not know, but for the order of sums."""
    images = torch.rand(1, 10, 3, 28, 28)
    with torch.no_grad():
        tokens = vggt.aggregator(images, keep=range(4))

    def dense_of(at_once: int):
        monkeypatch.setattr(dpt_head, "PIXELS_AT_ONCE", at_once * 28 * 28)
        vggt.zero_grad()
        depth, confidence = dpt_head.dense(vggt.depth_head, tokens, 28, 28)
        (depth.mean() + confidence.log().mean()).backward()
        return depth.detach(), [parameter.grad.clone() for parameter in vggt.depth_head.parameters()]

    (whole, gradients), (apart, others) = dense_of(10), dense_of(3)
    torch.testing.assert_close(apart, whole, atol=1e-6, rtol=1e-5)
    for expected, found in zip(gradients, others, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)
