"""Hunyuan3D's shape transformer is the released one, in names, shapes and numbers, and its step has static shapes."""

import json
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from conftest import PARITY
from parity import differences
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ablation.systems.hunyuan3d.flow import flow_step, sample, times
from ablation.systems.hunyuan3d.model import attention
from ablation.systems.hunyuan3d.model.dit import ShapeTransformer
from ablation.systems.hunyuan3d.model.grouped import group, grouped_linear
from ablation.systems.hunyuan3d.model.moe import MixtureOfExperts
from ablation.systems.hunyuan3d.settings import Architecture
from ablation.training.recompute import chosen, recompute
from ablation.vram import cuda
from ablation.vram.fake import materialise

CASE = PARITY / "hunyuan3d_dit-tiny"
ATTENTION = ["to_q", "to_k", "to_v", "out_proj"]
EXPERTS = r".*\.moe\.experts\.\d+\.net\.(0\.proj|2)"
TINY = Architecture(
    latents=12, channels=4, condition_tokens=5, condition_dim=8, dim=16, depth=5, heads=2, moe_layers=2, experts=4
)  # fmt: skip


@pytest.fixture
def tiny() -> ShapeTransformer:
    torch.manual_seed(0)
    return ShapeTransformer(TINY)


@pytest.fixture
def in_dtype(request) -> Iterator[None]:
    """Floating tensors are made in the type of the parameter."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


def batch() -> list[torch.Tensor]:
    """Data, noise, times, condition."""
    shape = 2, TINY.latents, TINY.channels
    condition = torch.randn(2, TINY.condition_tokens, TINY.condition_dim)
    return [torch.randn(shape), torch.randn(shape), torch.rand(2), condition]


def gradients(model: nn.Module, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of a training step, with the prediction."""
    model.train().zero_grad()
    step = flow_step(model, *inputs)
    step.loss.backward()
    return {"": step.predicted.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_heads_of_each_projection_are_another_network(monkeypatch):
    """The release's way of cutting heads is no matter of taste."""
    monkeypatch.setattr(attention, "heads_of_joined", lambda heads, *parts: [x.unflatten(-1, (heads, -1)) for x in parts])
    found = differences("hunyuan3d_dit", CASE)
    assert found["velocity_eval"] > 0.1 and found["block_out.0"] > 0.1


def test_released_names_and_shapes():
    released = {name: tuple(shape) for name, shape, _ in json.loads((PARITY / "hunyuan3d_dit.keys.json").read_text())}
    with torch.device("meta"):
        model = ShapeTransformer(Architecture())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == released
    assert sum(p.numel() for p in model.parameters()) == 3_050_758_720


@pytest.mark.parametrize(
    ("rank", "targets", "count"),
    [
        (4, ATTENTION, 2_580_480),
        (8, ATTENTION, 5_160_960),
        (16, ATTENTION, 10_321_920),
        (32, ATTENTION, 20_643_840),
        (64, ATTENTION, 41_287_680),
        (16, r".*attn1\.(to_q|to_v)", 2_752_512),
        (16, r".*attn1\.(to_q|to_k|to_v|out_proj)", 5_505_024),
        (16, r".*attn2\.(to_q|to_k|to_v|out_proj)", 4_816_896),
        (16, [*ATTENTION, "fc1", "fc2"], 15_237_120),
        (16, r"blocks\..*\.(to_q|to_k|to_v|out_proj|fc1|fc2|proj|net\.2|skip_linear)", 33_914_880),
    ],
)
def test_trainable_parameters_of_lora(rank, targets, count):
    with torch.device("meta"):
        model = get_peft_model(ShapeTransformer(Architecture()), LoraConfig(r=rank, target_modules=targets))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("change", [{"heads": 3}, {"dim": 15, "heads": 1}, {"moe_layers": 6}, {"experts_per_token": 5}])
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValidationError):
        Architecture(**{**TINY.model_dump(), **change})


@pytest.mark.parametrize("depth", [1, 2, 4, 5])
def test_any_depth(depth):
    model = ShapeTransformer(TINY.model_copy(update={"depth": depth, "moe_layers": 1}))
    data, _, t, condition = batch()
    assert model(data, t, condition).shape == data.shape
    assert sum(hasattr(block, "skip_linear") for block in model.blocks) == depth - 1 - depth // 2


def test_training_and_evaluation_give_the_same_numbers(tiny):
    data, _, t, condition = batch()
    assert torch.equal(tiny.train()(data, t, condition), tiny.eval()(data, t, condition))


@pytest.mark.parametrize("targets", [None, ATTENTION, EXPERTS], ids=["all", "attention", "experts"])
def test_gradient_checkpointing_is_bitwise_neutral(tiny, targets):
    model = get_peft_model(tiny, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)) if targets else tiny
    inputs = batch()
    plain = gradients(model, inputs)
    recompute(tiny.blocks)
    recomputed = gradients(model, inputs)
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def reference_mixture(moe: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """Token by token, from the definition."""
    out = []
    for token in x.flatten(0, 1):
        likely = F.linear(token, moe.gate.weight).softmax(-1)
        best = likely.topk(moe.gate.per_token)
        chosen = [w * moe.experts[int(e)](token) for w, e in zip(best.values, best.indices, strict=True)]
        out.append(sum(chosen) + moe.shared_experts(token))
    return torch.stack(out).view_as(x)


@pytest.mark.parametrize("favourite", [None, 0, 3], ids=["spread", "all to the first", "all to the last"])
def test_both_ways_through_the_experts(favourite):
    torch.manual_seed(1)
    moe = MixtureOfExperts(16, 32, experts=4, per_token=2).eval()
    x = torch.randn(2, 13, 16)
    if favourite is not None:
        with torch.no_grad():
            moe.gate.weight.zero_()
            moe.gate.weight[favourite] = 9
            x.abs_()
    weight = torch.randn_like(x)
    results = []
    for forward in (moe, lambda x: reference_mixture(moe, x), None):
        if forward is None:
            moe._groupable = lambda: False
            forward = moe
        moe.zero_grad()
        source = x.clone().requires_grad_()
        y = forward(source)
        (y * weight).sum().backward()
        got = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in moe.named_parameters()}
        results.append({"y": y.detach(), "x": source.grad, **got})
    for result in results[1:]:
        for name, value in result.items():
            torch.testing.assert_close(value, results[0][name], atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("dim", "hidden", "dtype"), [(6, 10, torch.float32), (16, 32, torch.float64)])
def test_experts_of_odd_widths_and_types(dim, hidden, dtype):
    moe = MixtureOfExperts(dim, hidden, experts=3, per_token=2).to(dtype).eval()
    x = torch.randn(1, 5, dim, dtype=dtype)
    torch.testing.assert_close(moe(x), reference_mixture(moe, x), atol=1e-5, rtol=1e-4)


def test_groups_follow_each_other():
    for experts in (torch.randint(0, 4, (50,)), torch.full((50,), 2), torch.full((50,), 3)):
        groups = group(experts, 4)
        assert groups.ends.tolist() == experts.bincount(minlength=4).cumsum(0).tolist()
        assert sorted(groups.places.tolist()) == list(range(50))
        assert torch.equal(groups.owners[groups.places], experts)


def test_a_grouped_layer_in_the_types_of_a_run():
    """Frozen in bf16 and trained in fp32 under autocast."""
    layers = [nn.Linear(16, 8) for _ in range(3)]
    groups = group(torch.tensor([2, 0, 2, 1]), 3)
    x = torch.randn(4, 16, requires_grad=True)
    expected = torch.stack([layers[int(e)](F.gelu(row)) for e, row in zip(groups.owners, x, strict=True)])
    with torch.autocast("cpu", torch.bfloat16):
        y = grouped_linear(x, groups, layers, gelu=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0.05, rtol=0.05)
    y.float().sum().backward()
    assert x.grad.dtype == layers[0].weight.grad.dtype == torch.float32
    torch.testing.assert_close(layers[0].bias.grad, torch.full((8,), float((groups.owners == 0).sum())))
    half = [layer.bfloat16() for layer in layers]
    assert grouped_linear(x.detach().bfloat16(), groups, half).dtype == torch.bfloat16


def test_grouped_products_are_counted():
    """A forward pass of the experts costs its T * k rows, not T rows an expert."""
    moe, x = MixtureOfExperts(16, 32, experts=8, per_token=2), torch.randn(1, 200, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        moe(x)
    assert counter.get_total_flops() == 2 * 16 * (200 * 8 + 2 * 32 * (400 + 200))


def test_the_balancing_term_enters_only_gradients(tiny):
    inputs = batch()
    trained = gradients(tiny, inputs)
    tiny.eval()
    tiny.zero_grad()
    flow_step(tiny, *inputs).loss.backward()
    assert trained.keys() - {""} == {name for name, p in tiny.named_parameters() if p.grad is not None}
    name = "blocks.4.moe.gate.weight"
    assert not torch.allclose(trained[name], tiny.get_parameter(name).grad, atol=1e-6)
    assert torch.equal(trained["final_layer.linear.weight"], tiny.final_layer.linear.weight.grad)


@pytest.mark.parametrize("like_cuda", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", [None, ATTENTION, EXPERTS], ids=["all", "attention", "experts"])
@pytest.mark.parametrize("in_dtype", [torch.float32, torch.bfloat16, torch.float16], indirect=True)
def test_a_step_on_fake_tensors(in_dtype, targets, checkpointing, like_cuda):
    """Which have no values: a step that read one back, or whose shapes hung on one, would raise."""
    with torch.device("meta"):
        model = ShapeTransformer(TINY)
        recompute(chosen(model.blocks, checkpointing))
        if targets:
            model = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    with cuda.like_cuda() if like_cuda else nullcontext(), FakeTensorMode():
        materialise(model)
        found = gradients(model, batch())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert found.keys() - {""} == trained and found[""].shape == (2, TINY.latents, TINY.channels)


@pytest.mark.parametrize("targets", [ATTENTION, EXPERTS], ids=["attention", "experts"])
def test_a_mixed_precision_step_on_fake_tensors(targets):
    """As a run has it: frozen weights in bf16, adapters in fp32, under CUDA's autocast; tokens stay in bf16."""
    with torch.device("meta"):
        model = get_peft_model(ShapeTransformer(TINY), LoraConfig(r=2, target_modules=targets))
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    types: list[torch.dtype] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: types.append(out.dtype))
    with cuda.like_cuda(), FakeTensorMode():
        materialise(model)
        with torch.autocast("cpu", torch.bfloat16):
            step = flow_step(model.train(), *batch())
        step.loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert step.loss.dtype == torch.float32 and set(types) == {torch.bfloat16}


def test_a_step_on_the_meta_device():
    with torch.device("meta"):
        model = ShapeTransformer(TINY)
        assert set(gradients(model, batch())) == {"", *(name for name, _ in model.named_parameters())}


def test_times_end_in_a_null_step():
    assert times(3).tolist() == [0, 0.5, 1, 1]


def test_samples_follow_the_velocity():
    """A velocity towards the data reaches it; guidance extrapolates from the unconditional one."""
    noise, data, condition = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.ones(2, 4, 8)

    def velocity(x, t, condition):
        assert x.shape == (4, 5, 3) and t.shape == (4,)
        return condition.mean(dim=(1, 2))[:, None, None] * (data - noise).repeat(2, 1, 1)

    torch.testing.assert_close(sample(velocity, noise, condition, steps=4, guidance=1.0), data)
    torch.testing.assert_close(sample(velocity, noise, condition, steps=4, guidance=2.0), noise + 2 * (data - noise))
