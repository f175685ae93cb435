"""Hunyuan3D's autoencoder has the released names and shapes, and treats points as a set."""

import json

import pytest
import torch
from conftest import PARITY

from ablation.systems.hunyuan3d.settings import Autoencoder
from ablation.systems.hunyuan3d.vae.points import embed_places, farthest_points
from ablation.systems.hunyuan3d.vae.vae import Gaussian, ShapeVAE

TINY = Autoencoder(
    frequencies=2, latents=8, channels=4, dim=16, heads=2, encoder_depth=1, decoder_depth=2, scale=2.0
)  # fmt: skip


@pytest.fixture
def tiny() -> ShapeVAE:
    torch.manual_seed(0)
    return ShapeVAE(TINY)


def test_released_names_and_shapes():
    released = {name: tuple(shape) for name, shape, _ in json.loads((PARITY / "hunyuan3d_vae.keys.json").read_text())}
    with torch.device("meta"):
        model = ShapeVAE(Autoencoder())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == released
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts["encoder"] == 113_402_112 and parts["transformer"] == 201_494_528 and parts["geo_decoder"] == 12_651_777
    assert sum(parts.values()) == 327_746_177


def test_farthest_points_by_definition():
    points = torch.randn(2, 40, 3)
    chosen = farthest_points(points, 10)
    for cloud, indices in zip(points, chosen.tolist(), strict=True):
        assert indices[0] == 0 and len(set(indices)) == 10
        for i in range(1, 10):
            nearest = torch.cdist(cloud, cloud[indices[:i]]).amin(dim=1)
            assert indices[i] == int(nearest.argmax())


def test_places_are_embedded_by_octaves():
    embedded = embed_places(torch.tensor([[0.1, 0.2, 0.3]]), 2)[0]
    angles = torch.tensor([0.1, 0.2, 0.2, 0.4, 0.3, 0.6])
    torch.testing.assert_close(embedded, torch.cat([torch.tensor([0.1, 0.2, 0.3]), angles.sin(), angles.cos()]))


def test_shapes_and_chunks(tiny):
    surface, places = torch.randn(2, 64, 7), torch.randn(2, 30, 3)
    latents = tiny.encode(surface)
    assert latents.mean.shape == latents.log_variance.shape == (2, 8, 4)
    tokens = tiny.decode(tiny.scaled(latents.mean))
    torch.testing.assert_close(tokens, tiny.transformer(tiny.post_kl(latents.mean)))
    whole, parts = tiny.field(places, tokens), tiny.field(places, tokens, at_once=7)
    assert whole.shape == (2, 30)
    torch.testing.assert_close(whole, parts)


def test_points_are_a_set(tiny):
    """The order of the points means nothing, but for which of them become latents."""
    surface, order = torch.randn(1, 64, 7), torch.randperm(64)
    chosen = farthest_points(surface[..., :3], 8)
    where = torch.argsort(order)
    straight, shuffled = tiny.encode(surface, chosen), tiny.encode(surface[:, order], where[chosen])
    torch.testing.assert_close(straight.mean, shuffled.mean)


def test_heads_hold_their_own_query_key_and_value(tiny):
    """Taking away the second half of ``c_qkv`` takes away the second head, and nothing of the first."""
    attention = tiny.transformer.resblocks[0].attn
    seen = []
    attention.attention.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    x = torch.randn(1, 5, 16)
    attention(x)
    with torch.no_grad():
        attention.c_qkv.weight[24:] = 0
    attention(x)
    assert torch.equal(seen[0][..., :8], seen[1][..., :8]) and not seen[1][..., 8:].any()


def test_the_gaussian():
    spread = Gaussian(torch.full((1, 2, 3), 2.0), torch.full((1, 2, 3), 4.0).log())
    torch.testing.assert_close(spread.sample(torch.full((1, 2, 3), 0.5)), torch.full((1, 2, 3), 3.0))
    normal = torch.distributions.Normal(2.0, 2.0), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(spread.divergence(), torch.distributions.kl_divergence(*normal))


def test_log_variances_are_bounded(tiny):
    with torch.no_grad():
        tiny.pre_kl.bias[4:] = 1e3
    assert (tiny.encode(torch.randn(1, 64, 7)).log_variance == 20).all()
