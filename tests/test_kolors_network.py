"""Kolors' frozen networks are the released ones, and the three objectives learn what they say from what they may see."""

import json
import math

import pytest
import small_kolors as small
import torch
from conftest import PARITY
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from ablation.systems.kolors.architecture import TRAIN_STEPS, Architecture, TextEncoder, UNet
from ablation.systems.kolors.diffusion import add_noise, signal_left
from ablation.systems.kolors.language import beyond_prefix, empty_text, next_word_loss, text_encoder
from ablation.systems.kolors.network import count_parameters
from ablation.systems.kolors.objectives import caption_loss, info_nce
from ablation.training.recompute import chosen, recompute
from ablation.vram.fake import materialise

OBJECTIVES = small.System.objectives


@pytest.fixture(scope="module")
def model():
    return small.network(trained=True)


@pytest.fixture
def batch():
    return small.batch()


def released(name):
    return {name: tuple(shape) for name, shape, _ in json.loads((PARITY / f"{name}.keys.json").read_text())}


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# --- the released networks -------------------------------------------------------------------------------------------


def test_names_and_shapes_of_the_released_unet():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNet().config(TextEncoder().dim))
    assert shapes_of(unet) == released("kolors_unet")


def test_names_and_shapes_of_the_released_language_model():
    """ChatGLM3-6B-base has 6.2 billion parameters, not the 4 billion that have been claimed."""
    with torch.device("meta"):
        assert shapes_of(text_encoder(TextEncoder())) == released("chatglm3")
    assert count_parameters(Architecture(), 256)["text_encoder"] == 6_243_584_000


def test_prompts_are_what_kolors_pipeline_makes_of_them(model, batch):
    """As ``KolorsPipeline.encode_prompt`` asks ChatGLM, positions as its tokenizer counts them."""
    tokens, mask = batch["tokens"], batch["token_mask"]
    begins = (~mask).sum(1, keepdim=True)
    positions = (torch.arange(tokens.shape[1]) - begins).clamp(min=0)
    wanted = model.text_encoder(tokens, attention_mask=mask.long(), position_ids=positions, output_hidden_states=True)
    prompt = model.prompt(tokens, mask)
    assert torch.equal(prompt.states, wanted.hidden_states[-2].permute(1, 0, 2))
    assert torch.equal(prompt.pooled, wanted.hidden_states[-1][-1])


def test_noise_is_that_of_kolors_scheduler():
    scheduler = DDPMScheduler(TRAIN_STEPS, 0.00085, 0.014, "scaled_linear")
    steps = torch.tensor([0, 1, 550, TRAIN_STEPS - 1])
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(signal_left(steps), scheduler.alphas_cumprod[steps])
    torch.testing.assert_close(add_noise(latents, noise, steps), scheduler.add_noise(latents, noise, steps))


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_empty_text_is_the_prefix_alone(batch):
    tokens, mask = empty_text(batch["tokens"], batch["token_mask"])
    assert tokens[0, -2:].tolist() == list(small.PREFIX) and tokens[0, :-2].eq(0).all()
    assert mask[0].tolist() == [False] * (mask.shape[1] - 2) + [True] * 2


def test_the_prefix_is_not_learned(batch):
    counted = beyond_prefix(batch["token_mask"])
    assert counted.sum(1).tolist() == [small.SAMPLE.text_length - 5, small.SAMPLE.text_length - 6]
    assert not counted[0, :5].any() and counted[0, 5:].all()


def test_words_are_foretold_from_the_place_before():
    logits = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))
    tokens, counted = torch.tensor([[0, 3, 5, 7]]), torch.tensor([[False, False, True, True]])
    by_hand = -(logits[0, 1].log_softmax(0)[5] + logits[0, 2].log_softmax(0)[7]) / 2
    assert next_word_loss(logits, tokens, counted).item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert next_word_loss(logits, tokens, torch.zeros_like(counted)).item() == 0, "an empty caption is no NaN"


def test_padding_does_not_matter_to_a_captions_words(model, batch):
    """Visual tokens stand before it, and are as near to the text as without it."""
    features = model.features(batch)[1:]
    longer = {name: batch[name][1:] for name in ("tokens", "token_mask")}
    exact = {name: value[:, 4:] for name, value in longer.items()}
    assert exact["token_mask"].all() and not longer["token_mask"].all()
    torch.testing.assert_close(caption_loss(model, longer, features), caption_loss(model, exact, features))


def test_a_caption_depends_on_its_picture(model, batch):
    features = model.features(batch)
    assert not torch.allclose(caption_loss(model, batch, features), caption_loss(model, batch, -features), atol=1e-4)


# --- what a picture's features may know ------------------------------------------------------------------------------


def test_features_are_told_neither_caption_nor_labels(model, batch):
    """Else both objectives that start from them would read the answer off."""
    features = model.features(batch)
    caption = torch.where(beyond_prefix(batch["token_mask"]), 17, batch["tokens"])
    assert torch.equal(features, model.features({**batch, "tokens": caption, "labels": batch["labels"].flip(1)}))
    for name in ("latents", "boxes"):
        assert not torch.allclose(features, model.features({**batch, name: batch[name].flip(0)}), atol=1e-3)


def test_features_leave_no_hooks_behind(model, batch):
    model.features(batch)
    assert not any(module._forward_hooks for module in model.unet.modules())


# --- losses ----------------------------------------------------------------------------------------------------------


def test_contrast_of_captions_and_pictures():
    assert info_nce(torch.tensor([[3.0]])).item() == 0, "one alone has nothing to be told from"
    assert info_nce(100 * torch.eye(3)).item() == pytest.approx(0, abs=1e-6)
    assert info_nce(torch.zeros(4, 4)).item() == pytest.approx(math.log(4))
    similarity = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    rows = F.cross_entropy(similarity, torch.arange(3))
    columns = F.cross_entropy(similarity.T, torch.arange(3))
    assert info_nce(similarity).item() == pytest.approx(((rows + columns) / 2).item())


def test_losses_are_gills_sums(model, batch):
    loss, parts = model(batch, "retrieval")
    assert loss.item() == pytest.approx((0.5 * parts["retrieval_words"] + parts["info_nce"]).item())
    loss, parts = model(batch, "generation")
    assert loss.item() == pytest.approx((0.5 * parts["generation_words"] + parts["states"] + parts["noise"]).item())


def test_the_mapped_states_are_held_against_every_state_of_the_caption(model, batch):
    states = model.prompt(batch["tokens"], batch["token_mask"]).states
    width = small.SIZES.text_encoder.dim
    assert states.shape == (2, small.SAMPLE.text_length, width)
    mapped = model.heads.mapper(torch.randn(2, small.SIZES.heads.images, width))
    assert mapped.shape == states.shape


def parameters_of(model, batch, name):
    """The parts of the trained networks that an objective has a gradient for."""
    model.zero_grad(set_to_none=True)
    model(batch, name)[0].backward()
    found = {key for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    assert all(key.startswith(("adapter.", "heads.")) for key in found), "the rest is frozen"
    return {".".join(key.split(".")[: 2 if key.startswith("heads.") else 1]) for key in found}


def test_objectives_train_different_parameters(model, batch):
    """Which is why processes that share gradients must look for those without one."""
    assert {name: parameters_of(model, batch, name) for name in OBJECTIVES} == {
        "captioning": {"adapter", "heads.features", "heads.visual"},
        "retrieval": {"adapter", "heads.features", "heads.images", "heads.retrieval"},
        "generation": {"adapter", "heads.images", "heads.mapper"},
    }


def test_only_image_tokens_that_were_read_learn(model, batch):
    rows = model.heads.images.rows
    for name, count in (("retrieval", 1), ("generation", small.SIZES.heads.images)):
        model.zero_grad(set_to_none=True)
        model(batch, name)[0].backward()
        assert (rows.grad.abs().amax(1) > 0).tolist() == [number < count for number in range(len(rows))]
    model.zero_grad(set_to_none=True)


def test_one_backward_pass_each_gives_the_gradients_of_the_sum(model, batch):
    """To 1e-6 of the largest entry, not bitwise: the sum's pass adds what the objectives share in another order."""

    def gradients():
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return found

    for name in OBJECTIVES:
        (model(batch, name)[0] / 3).backward()
    each = gradients()
    sum(model(batch, name)[0] / 3 for name in OBJECTIVES).backward()
    summed = gradients()
    assert each.keys() == summed.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, gradient in each.items():
        difference, largest = (gradient - summed[name]).abs().max(), summed[name].abs().max()
        assert difference <= 1e-6 * max(largest, 1e-3), name


def test_a_step_of_each_lowers_its_loss(batch):
    for name in OBJECTIVES:
        model = small.network()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        losses = []
        for _ in range(8):
            loss, _ = model(batch, name)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0] - 0.05, (name, losses)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_frozen_networks_may_be_held_in_half_precision(batch, precision):
    model = small.network(trained=True)
    for part in (model.unet, model.text_encoder):
        for parameter in part.parameters():
            parameter.data = parameter.data.to(precision)
    exact = small.network(trained=True)
    for name in OBJECTIVES:
        with torch.autocast("cpu", precision):
            loss, _ = model(batch, name)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact(batch, name)[0].item(), rel=0.05)
        loss.backward()


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_step_reads_nothing_back_from_the_device(recomputed):
    """It runs on tensors without values."""
    system = small.system()
    with torch.device("meta"):
        model = system.build()
    recompute(chosen(system.recomputable(model), recomputed))
    model.requires_grad_(False)
    model.adapter.requires_grad_(True)
    with FakeTensorMode():
        materialise(model)
        batch = system.fake_batch(2)
        for name in OBJECTIVES:
            model(batch, name)[0].backward()
