"""The layout adapter: in every cross-attention, in no self-attention, silent at the start, and local to its boxes."""

import logging
import math
from collections import Counter

import pytest
import small_kolors as small
import torch
from allocations import growth
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from hypothesis import assume, given
from hypothesis import strategies as st

from ablation.systems.kolors.adapter import LayoutProcessor, Objects, covered, cross_attentions, fourier
from ablation.systems.kolors.architecture import Architecture
from ablation.systems.kolors.network import Kolors, count_parameters
from ablation.training.recompute import chosen, recompute


@pytest.fixture(scope="module")
def full():
    """The released size, without memory."""
    with torch.device("meta"):
        return Kolors(Architecture(), 256)


@pytest.fixture(scope="module")
def batch():
    return small.batch()


def denoise(model, batch, layout):
    prompt = model.prompt(batch["tokens"], batch["token_mask"])
    return model.denoise(batch["latents"], batch["diffusion"], prompt, layout, batch["time_ids"])


# --- where it is -----------------------------------------------------------------------------------------------------


def test_every_cross_attention_of_the_released_unet_has_one(full):
    attentions = cross_attentions(full.unet)
    assert Counter(attention.query_dim for attention in attentions.values()) == {640: 10, 1280: 60}
    assert all(type(attention.processor) is LayoutProcessor for attention in attentions.values())
    layers = {id(attention.processor.layer) for attention in attentions.values()}
    assert layers == {id(layer) for layer in full.adapter.attentions.values()} and len(layers) == 70


def test_no_self_attention_has_one(full):
    others = {name: m for name, m in full.unet.named_modules() if isinstance(m, Attention) and not name.endswith("attn2")}
    assert len(others) == 70 and all(name.endswith("attn1") for name in others)
    assert all(type(attention.processor) is AttnProcessor2_0 for attention in others.values())
    assert not any("attn1" in name for name, _ in full.adapter.named_parameters())


def test_the_unet_keeps_the_released_parameters(full):
    """The adapter's are its own: what is trained is ``adapter`` and ``heads``."""
    assert sum(p.numel() for p in full.unet.parameters()) == 2_579_458_820
    assert {name.partition(".")[0] for name, _ in full.named_parameters()} == {"unet", "text_encoder", "adapter", "heads"}


def test_it_has_about_fifty_million_parameters():
    """With a bottleneck of 192; GLIGEN's layers would be 1.8 billion."""
    counts = count_parameters(Architecture(), 256)
    assert counts["adapter"] == 48_372_736
    assert counts["adapter"] == pytest.approx(50e6, rel=0.05)


# --- silent at the start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_before_training_the_output_is_that_of_the_plain_unet(batch, precision):
    model = small.network()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
        plain, told = denoise(model, batch, None), denoise(model, batch, model.layout(batch))
    assert torch.equal(plain, told)
    with torch.no_grad():
        trained = small.network(trained=True)
        assert not torch.allclose(denoise(trained, batch, None), denoise(trained, batch, trained.layout(batch)), atol=1e-3)


def test_self_attention_takes_and_gives_the_same_until_an_adapter_has_spoken(batch):
    """Before training everywhere; with a trained adapter in the first block still, whose cross-attention comes after it."""

    def seen(model, told):
        found, hooks = [], []
        for name, module in model.unet.named_modules():
            if name.endswith("attn1"):
                hooks.append(module.register_forward_hook(lambda module, given, out: found.append((given[0], out))))
        with torch.no_grad():
            denoise(model, batch, model.layout(batch) if told else None)
        for hook in hooks:
            hook.remove()
        return found

    fresh, trained = small.network(), small.network(trained=True)
    for plain, told in zip(seen(fresh, False), seen(fresh, True), strict=True):
        assert torch.equal(plain[0], told[0]) and torch.equal(plain[1], told[1])
    plain, told = seen(trained, False), seen(trained, True)
    assert torch.equal(plain[0][0], told[0][0]) and torch.equal(plain[0][1], told[0][1])
    assert not torch.equal(plain[1][0], told[1][0])


def test_the_last_projection_learns_first(batch):
    """At zero it stops what lies before it, so the others follow from the second step on."""
    model = small.network()
    model(batch, "generation")[0].backward()
    for layer in model.adapter.attentions.values():
        assert layer.out.weight.grad.abs().max() > 0
        assert layer.q.weight.grad.abs().max() == 0


def test_diffusers_warns_of_nothing(batch, monkeypatch):
    warned = []
    monkeypatch.setattr(logging.Logger, "warning", lambda self, *words, **_: warned.append(words))
    model = small.network()
    model(batch, "generation")
    assert not warned


# --- local to its boxes ----------------------------------------------------------------------------------------------

shares = st.floats(0, 1, width=32)
sides = st.sampled_from([1, 2, 4, 6, 8, 16])


@st.composite
def corners(draw):
    """left, top, right, bottom with left < right and top < bottom."""
    x, y = (sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True))) for _ in range(2))
    return [x[0], y[0], x[1], y[1]]


def on_a_line(value: float, count: int) -> bool:
    """Whether fp32 cannot tell on which side of a line between ``count`` cells a share lies; exactly on one is told."""
    away = abs(value * count - round(value * count))
    return 0 < away < 1e-5


@given(corners(), sides, sides)
def test_a_cell_is_covered_where_it_shares_area_with_the_box(box, height, width):
    found = covered(torch.tensor(box), height, width).reshape(height, width)
    left, top, right, bottom = torch.tensor(box).tolist()
    assume(
        not any(
            on_a_line(value, count) for values, count in (((left, right), width), ((top, bottom), height)) for value in values
        )
    )
    for y in range(height):
        for x in range(width):
            overlap = min(x + 1, right * width) > max(x, left * width) and min(y + 1, bottom * height) > max(y, top * height)
            assert found[y, x] == overlap


@given(corners(), sides, sides)
def test_no_box_is_lost_at_a_coarse_level(box, height, width):
    """A coarse cell is covered where one of its fine cells is."""
    coarse = covered(torch.tensor(box), height, width).reshape(height, width)
    fine = covered(torch.tensor(box), 2 * height, 2 * width).reshape(height, 2, width, 2)
    assert coarse.any() and torch.equal(coarse, fine.any(dim=3).any(dim=1))


def test_the_whole_picture_covers_every_cell():
    assert covered(torch.tensor([0.0, 0.0, 1.0, 1.0]), 5, 7).all()


def test_boxes_are_embedded_as_in_gligen():
    box = torch.tensor([0.1, 0.2, 0.6, 0.9])
    found = fourier(box, 8).reshape(4, 2, 8)
    for side in range(4):
        for octave in range(8):
            angle = box[side].item() * 100 ** (octave / 8)
            assert found[side, 0, octave].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert found[side, 1, octave].item() == pytest.approx(math.cos(angle), abs=1e-5)


def attended(model, objects, pixels, side):
    """What the first attention adds to each pixel."""
    layer = next(iter(model.adapter.attentions.values()))
    with torch.no_grad():
        return layer(pixels, model.adapter(objects, [(side, side)]))


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_box_changes_the_pixels_of_its_old_and_its_new_place_alone(seed):
    model, side = small.network(trained=True), 8
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(1, 3, 2, 2, generator=draw).sort(dim=2).values.flatten(2)
    moved = boxes.clone()
    moved[0, 1] = torch.rand(2, 2, generator=draw).sort(dim=0).values.flatten()
    labels, there = torch.randn(1, 3, 16, generator=draw), torch.ones(1, 3, dtype=torch.bool)
    pixels = torch.randn(1, side * side, 16, generator=draw)
    before, after = (attended(model, Objects(labels, there, at, there), pixels, side) for at in (boxes, moved))
    changed = (before - after).abs().amax(-1)[0] > 1e-6
    touched = covered(boxes[0, 1], side, side) | covered(moved[0, 1], side, side)
    assert torch.equal(changed, touched)


def test_objects_that_are_not_there_say_nothing(batch):
    model = small.network(trained=True)
    absent = ~batch["box_mask"]
    other = {**batch, "boxes": batch["boxes"].clone(), "labels": batch["labels"].clone()}
    other["boxes"][absent], other["labels"][absent] = torch.tensor([0.0, 0.0, 1.0, 1.0]), 7
    with torch.no_grad():
        assert torch.equal(denoise(model, batch, model.layout(batch)), denoise(model, other, model.layout(other)))


def test_a_label_and_its_absence_are_told_apart(batch):
    model = small.network(trained=True)
    renamed = {**batch, "labels": batch["labels"].flip(1)}
    with torch.no_grad():
        named, blank = model.layout(batch), model.layout(batch, labelled=False)
        assert not torch.allclose(named.tokens[:, :-1], model.layout(renamed).tokens[:, :-1], atol=1e-3)
        assert torch.equal(blank.tokens, model.layout(renamed, labelled=False).tokens)
        assert not torch.allclose(blank.tokens[:, :-1], named.tokens[:, :-1], atol=1e-3)


# --- recomputed ------------------------------------------------------------------------------------------------------


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_recomputed_gradients_are_the_same_and_need_less_memory(batch):
    found, held = {}, {}
    model = small.network(trained=True)
    for recomputed in (False, True):
        recompute(chosen(small.system().recomputable(model), recomputed))
        found[recomputed] = []
        for name in small.System.objectives:
            losses = []
            held[name, recomputed] = growth(lambda name=name, losses=losses: losses.append(model(batch, name)[0]))
            losses[0].backward()
            found[recomputed].append(gradients(model))
    for plain, again in zip(found[False], found[True], strict=True):
        assert plain.keys() == again.keys()
        assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert all(held[name, True] < 0.7 * held[name, False] for name in small.System.objectives)


def test_a_recomputed_pass_sees_the_layout_of_its_own_forward_pass(batch):
    """Also where another layout came after it, as in a baseline that keeps all its graphs."""
    model, other = small.network(trained=True), small.batch(seed=1)
    recompute(small.system().recomputable(model))
    alone = []
    for each in (batch, other):
        model(each, "generation")[0].backward()
        alone.append(gradients(model))
    losses = [model(each, "generation")[0] for each in (batch, other)]
    losses[0].backward()
    first = gradients(model)
    assert all(torch.equal(first[name], alone[0][name]) for name in first)
    losses[1].backward()
    second = gradients(model)
    assert all(torch.equal(second[name], alone[1][name]) for name in second)
