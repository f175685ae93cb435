"""Hunyuan3D's image tokens, their number, and the released file of three networks."""

import json

import numpy as np
import pytest
import torch
from conftest import PARITY
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from ablation.errors import UserError
from ablation.systems.hunyuan3d.conditioner import DEVIATION, MEAN, ImageConditioner, prepare_images
from ablation.systems.hunyuan3d.model.dit import ShapeTransformer
from ablation.systems.hunyuan3d.settings import Architecture, Autoencoder, Conditioner
from ablation.systems.hunyuan3d.tokens import check_tokens, token_count
from ablation.systems.hunyuan3d.vae.vae import ShapeVAE
from ablation.systems.hunyuan3d.weights import RENAMED, load_weights, todays_name

TABLE = {518: 1370, 384: 730}  # image sizes and numbers of tokens that match
TINY = Conditioner(image_size=42, trained_size=42, dim=16, depth=2, heads=2)
TINY_DIT = Architecture(channels=4, condition_tokens=10, condition_dim=16, dim=16, depth=3, heads=2, moe_layers=1, experts=2)
TINY_VAE = Autoencoder(latents=8, channels=4, dim=16, heads=2, encoder_depth=1, decoder_depth=1)


def networks(seed: int = 0) -> dict[str, nn.Module]:
    """The three networks at their smallest, with random weights."""
    torch.manual_seed(seed)
    parts = {"model": ShapeTransformer(TINY_DIT), "vae": ShapeVAE(TINY_VAE), "conditioner": ImageConditioner(TINY)}
    for part in parts.values():
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.2)
    return parts


def released(parts: dict[str, nn.Module]) -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of ``parts`` in fp16, DINOv2 under the names of transformers 4."""
    states = {}
    for part, network in parts.items():
        states[part] = {}
        for name, value in network.state_dict().items():
            for old, new in RENAMED.items() if part == "conditioner" else ():
                name = name.replace(new, old)
            states[part][name] = value.half()
    return states


def flat(states: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": value for part, state in states.items() for name, value in state.items()}


def test_the_number_of_tokens():
    assert {size: token_count(size) for size in TABLE} == TABLE
    for size, tokens in TABLE.items():
        check_tokens(size, tokens)


def test_the_published_formula_does_not_give_the_table():
    """``(size // 14)^2 + 2`` counts one token too many, at every size: there is one class token, and no register."""
    for size, tokens in TABLE.items():
        assert (size // 14) ** 2 + 2 == tokens + 1
        with pytest.raises(UserError, match=f"makes {tokens} condition tokens"):
            check_tokens(size, (size // 14) ** 2 + 2)


@pytest.mark.parametrize(
    ("size", "tokens", "words"),
    [
        (384, 1370, ["image_size = 384 makes 730", "27 x 27", "set condition_tokens = 730, or image_size = 518"]),
        (518, 730, ["image_size = 518 makes 1370", "37 x 37", "image_size = 378 (378 to 391 make 730)"]),
        (518, 1371, ["set condition_tokens = 1370; no image_size makes 1371"]),
    ],
)
def test_sizes_that_do_not_match_are_refused(size, tokens, words):
    with pytest.raises(UserError) as caught:
        check_tokens(size, tokens)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("size", [42, 30, 57])
def test_as_many_tokens_as_counted(size):
    """Also where the side is no multiple of a patch, and where the table of positions must be interpolated."""
    conditioner = ImageConditioner(TINY.model_copy(update={"image_size": size}))
    tokens = conditioner(torch.rand(2, 3, 50, 60) * 2 - 1)
    assert tokens.shape == conditioner.unconditional(2).shape == (2, token_count(size), 16)
    assert tokens.any() and not conditioner.unconditional(2).any()


def test_the_released_size_on_the_meta_device():
    with torch.device("meta"):
        conditioner = ImageConditioner(Conditioner())
        assert conditioner(torch.zeros(1, 3, 512, 512)).shape == (1, 1370, 1024)
    assert sum(p.numel() for p in conditioner.parameters()) == 304_368_640


def test_released_names_and_shapes():
    lists = json.loads((PARITY / "hunyuan3d_conditioner.keys.json").read_text())
    old, new = ({name: tuple(shape) for name, shape, _ in lists[key]} for key in sorted(lists))
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in ImageConditioner(Conditioner()).state_dict().items()}
    assert old.keys() != new.keys() and len(old) == 439
    assert {todays_name(name): shape for name, shape in old.items()} == ours == new


def test_images_are_prepared_as_pillow_would():
    """Antialiased bilinear resizing to the shorter side, then the middle."""
    rng = np.random.default_rng(0)
    pixels = rng.random((3, 40, 61), dtype=np.float32)
    resized = np.stack([np.asarray(Image.fromarray(p).resize((30, 20), Image.Resampling.BILINEAR)) for p in pixels])
    wanted = (torch.from_numpy(resized[:, :, 5:25]) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[
        :, None, None
    ]
    torch.testing.assert_close(prepare_images(torch.from_numpy(pixels)[None] * 2 - 1, 20)[0], wanted, atol=1e-5, rtol=0)


def test_an_image_of_the_right_size_is_only_normalised():
    black, white = prepare_images(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8), 8)
    assert black[0, 0, 0] == pytest.approx(-0.485 / 0.229) and white[2, 7, 7] == pytest.approx((1 - 0.406) / 0.225)


def test_the_conditioner_is_frozen():
    conditioner = networks()["conditioner"].train()
    conditioner.requires_grad_(True)
    images = torch.rand(1, 3, 42, 42, requires_grad=True)
    assert not conditioner.main_image_encoder.training and not conditioner(images).requires_grad
    assert not any(p.requires_grad for p in ImageConditioner(TINY).parameters())


def test_impossible_sizes_are_refused():
    with pytest.raises(ValidationError, match="does not divide"):
        Conditioner(heads=3)
    with pytest.raises(ValidationError, match="at least patch_size"):
        Conditioner(image_size=10)


@pytest.mark.parametrize("name", ["model.fp16.ckpt", "model.fp16.safetensors"])
def test_both_released_forms_load(tmp_path, name):
    path, states = tmp_path / name, released(networks())
    if name.endswith("safetensors"):
        save_file(flat(states), path)
    else:
        torch.save(states, path)
    parts = networks(seed=1)
    load_weights(parts, path)
    for part, network in parts.items():
        for key, value in network.state_dict().items():
            old = next(name for name in states[part] if todays_name(name) == key)
            assert value.dtype == torch.float32 and torch.equal(value, states[part][old].float())
    assert not any(p.requires_grad for p in parts["conditioner"].parameters())


def test_one_part_alone_loads(tmp_path):
    torch.save(released(networks()), tmp_path / "model.fp16.ckpt")
    other = networks(seed=1)["vae"]
    load_weights({"vae": other}, tmp_path / "model.fp16.ckpt")
    assert torch.equal(other.post_kl.weight, networks()["vae"].post_kl.weight.half().float())


def test_an_absent_part_is_named(tmp_path):
    states = released(networks())
    del states["vae"]
    torch.save(states, tmp_path / "model.fp16.ckpt")
    with pytest.raises(UserError, match="holds no vae; its parts are: model, conditioner"):
        load_weights(networks(), tmp_path / "model.fp16.ckpt")


@pytest.mark.parametrize(("part", "setting"), [("vae", "model.autoencoder"), ("conditioner", "model.conditioner")])
def test_mismatches_are_named_with_their_part(tmp_path, part, setting):
    path, states = tmp_path / "model.fp16.ckpt", released(networks())
    first = next(iter(states[part]))
    states[part][f"{first}x"] = states[part].pop(first)
    torch.save(states, path)
    with pytest.raises(UserError) as caught:
        load_weights(networks(), path)
    words = [f"{path} ({part}): does not fit {setting}", f"{first}x looks like {first}", "1 parameters missing"]
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_no_state_dict_is_refused(tmp_path):
    path = tmp_path / "model.fp16.ckpt"
    torch.save({"model": 3}, path)
    with pytest.raises(UserError, match=r"\(model\): holds no plain state dict"):
        load_weights({"model": nn.Linear(1, 1)}, path)
    torch.save([1], path)
    with pytest.raises(UserError, match="holds no plain state dict"):
        load_weights({}, path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights({}, path)
    with pytest.raises(UserError, match="hf download tencent"):
        load_weights({}, tmp_path / "absent.ckpt")
