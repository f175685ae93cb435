"""The transformers are the papers' ones, begin as nothing, and read released files; the diffusion is what it claims to be."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel, PixArtTransformer2DModel
from safetensors.torch import save_file

from ablation.errors import UserError
from ablation.systems.dit import diffusion
from ablation.systems.dit.diffusion import Table, discretised_likelihood, guided, normal_divergence, sample, training_losses
from ablation.systems.dit.metrics import frechet_distance, moments
from ablation.systems.dit.network import CaptionTransformer, ClassTransformer
from ablation.systems.dit.settings import Architecture
from ablation.systems.dit.weights import load_weights, unfit

TINY = Architecture(depth=2, heads=2, head_dim=8, latent_size=8, classes=10, text_dim=16)
STEPS = torch.tensor([0, 500, 999])


def network(a: Architecture = TINY) -> ClassTransformer:
    """With all weights random: the last layer, too, which training begins with as zeros."""
    torch.manual_seed(0)
    model = ClassTransformer(a)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "millions"), [((12, 6, 64), 33), ((12, 12, 64), 130), ((24, 16, 64), 458), ((28, 16, 72), 675)]
)
def test_the_sizes_are_those_of_the_paper(sizes, millions):
    depth, heads, head_dim = sizes
    with torch.device("meta"):
        model = ClassTransformer(Architecture(depth=depth, heads=heads, head_dim=head_dim))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


def test_a_fresh_network_predicts_no_noise_and_every_class_alike():
    latents, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 9, 10])
    assert not ClassTransformer(TINY)(latents, STEPS, labels).any()
    captions = torch.randn(3, 5, 16).half(), torch.ones(3, 5, dtype=torch.bool)
    assert not CaptionTransformer(TINY)(latents, STEPS, *captions).any()


def test_no_chance_is_left_in_training_mode():
    """Diffusers' blocks would drop classes here, each by itself."""
    model, latents, labels = network().train(), torch.randn(64, 4, 8, 8), torch.arange(64) % 10
    steps = torch.full((64,), 500)
    torch.testing.assert_close(model(latents, steps, labels), model(latents, steps, labels), rtol=0, atol=0)


def test_the_time_has_the_frequencies_of_the_release():
    """facebookresearch/DiT: cosines, then sines, of t · 10000^(-i/128)."""
    frequencies = 10_000 ** (-torch.arange(128, dtype=torch.float64) / 128)
    angles = STEPS[:, None] * frequencies
    found = ClassTransformer(TINY).embedder.time_proj(STEPS)
    torch.testing.assert_close(found, torch.cat([angles.cos(), angles.sin()], 1).float(), rtol=0, atol=2e-4)


def test_no_class_has_a_row_of_its_own():
    model, latents = network(), torch.randn(1, 4, 8, 8).expand(11, -1, -1, -1)
    given = model(latents, torch.full((11,), 300), torch.arange(11))
    assert len({tuple(row.flatten()[:8].tolist()) for row in given}) == 11
    assert model.embedder.class_embedder.embedding_table.num_embeddings == 11


def test_padding_behind_a_caption_counts_for_nothing():
    torch.manual_seed(0)
    model = CaptionTransformer(TINY).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    latents, tokens = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 16)
    mask = torch.arange(6)[None] < 4
    other = torch.where(mask[..., None], tokens, 5.0)
    steps = torch.tensor([100])
    torch.testing.assert_close(model(latents, steps, tokens, mask), model(latents, steps, other, mask))
    assert not torch.allclose(model(latents, steps, tokens, mask), model(latents, steps, tokens * 2, mask))


# --- released weights ------------------------------------------------------------------------------------------------


@pytest.fixture
def released(tmp_path):
    """A small DiT as diffusers writes the released one: every block with the same embedder. The model and its file."""
    torch.manual_seed(1)
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, attention_bias=True,
    ).eval()  # fmt: skip
    first, second = (block.norm1.emb for block in model.transformer_blocks)
    second.load_state_dict(first.state_dict())
    for embedder in (first, second):
        embedder.time_proj.downscale_freq_shift = 0  # diffusers has 1, with which the released weights were not trained
    model.save_pretrained(str(tmp_path))
    return model, tmp_path / "diffusion_pytorch_model.safetensors"


def test_a_released_folder_gives_what_diffusers_gives(released):
    theirs, path = released
    ours = ClassTransformer(TINY).eval()
    load_weights(ours, path)
    latents, labels = torch.randn(3, 4, 8, 8), torch.tensor([1, 4, 10])
    torch.testing.assert_close(ours(latents, STEPS, labels), theirs(latents, STEPS, labels).sample)
    assert unfit(path, "class", TINY) == []


def test_a_released_pixart_gives_what_diffusers_gives(tmp_path):
    torch.manual_seed(1)
    theirs = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        cross_attention_dim=16, caption_channels=16, use_additional_conditions=False,
    ).eval()  # fmt: skip
    theirs.save_pretrained(str(tmp_path))
    ours, path = CaptionTransformer(TINY).eval(), tmp_path / "diffusion_pytorch_model.safetensors"
    load_weights(ours, path)
    latents, tokens, mask = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 16), torch.arange(5) < torch.tensor([[5], [3], [1]])
    sizes = {"resolution": None, "aspect_ratio": None}
    expected = theirs(latents, tokens, STEPS, sizes, encoder_attention_mask=mask).sample
    torch.testing.assert_close(ours(latents, STEPS, tokens, mask), expected)
    assert unfit(path, "caption", TINY) == []


def test_embedders_that_differ_are_no_dit(released):
    model, path = released
    with torch.no_grad():
        model.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias[0] += 1
    model.save_pretrained(str(path.parent))
    with pytest.raises(UserError, match=r"transformer_blocks\.1\.norm1\.emb\.timestep_embedder.* differs"):
        load_weights(ClassTransformer(TINY), path)


def test_what_a_run_trained_can_be_trained_on(tmp_path):
    model, path = network(), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    again = ClassTransformer(TINY)
    load_weights(again, path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_heads_that_no_shape_tells_are_compared_with_the_description(released):
    _, path = released
    wrong = Architecture(depth=2, heads=4, head_dim=4, latent_size=8, classes=10)
    lines = unfit(path, "class", wrong)
    assert len(lines) == 2 and "num_attention_heads = 2, model.architecture.heads is 4" in lines[0]
    (path.parent / "config.json").write_text("[]")
    assert "no description of a network" in unfit(path, "class", wrong)[0]
    assert "is not there" in unfit(path.parent / "other.bin", "class", wrong)[0]


# --- the diffusion ---------------------------------------------------------------------------------------------------


def test_noise_is_added_as_by_ddpm():
    theirs = DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    seen = []

    def watch(noisy, steps):
        seen.append(noisy)
        return noise

    losses = training_losses(watch, clean, noise, STEPS)
    torch.testing.assert_close(seen[0], theirs.add_noise(clean, noise, STEPS), rtol=1e-4, atol=1e-5)
    assert losses["mse"] == 0 and set(losses) == {"mse"}


def test_the_bound_is_least_at_the_true_variance_and_trains_the_variance_alone():
    """With the right noise and the least variance, nothing is lost at any step but the first, where shades are rounded."""
    clean, noise = torch.rand(2, 4, 8, 8) * 1.8 - 0.9, torch.randn(2, 4, 8, 8)
    steps = torch.tensor([1, 700])

    def bound(fraction: float) -> float:
        output = torch.cat([noise, torch.full_like(noise, 2 * fraction - 1)], dim=1)
        return float(training_losses(lambda *_: output, clean, noise, steps)["vlb"])

    assert bound(0.0) == pytest.approx(0, abs=1e-4)
    assert 0 < bound(0.5) < bound(1.0)
    noise_out, variance = torch.randn(2, 4, 8, 8, requires_grad=True), torch.zeros(2, 4, 8, 8, requires_grad=True)
    training_losses(lambda *_: torch.cat([noise_out, variance], dim=1), clean, noise, steps)["vlb"].backward()
    assert not noise_out.grad.any() and variance.grad.any()


def test_variances_lie_between_the_posterior_and_the_noise_of_the_step():
    table, steps = Table("cpu"), torch.arange(1000)
    assert (table["log_least", steps] <= table["log_most", steps] + 1e-6).all()
    theirs = DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, variance_type="fixed_small")
    expected = torch.stack([theirs._get_variance(int(step)) for step in steps[1:]]).log()
    torch.testing.assert_close(table["log_least", steps[1:]].flatten(), expected, rtol=1e-3, atol=1e-3)


def test_divergence_and_likelihood_are_distributions_own():
    one, other = torch.distributions.Normal(0.3, 0.5), torch.distributions.Normal(-0.2, 2.0)
    ours = normal_divergence(*(torch.tensor(x) for x in (0.3, 2 * np.log(0.5), -0.2, 2 * np.log(2.0))))
    assert float(ours) == pytest.approx(float(torch.distributions.kl_divergence(one, other)), rel=1e-5)
    shades = torch.linspace(-1, 1, 256)
    total = discretised_likelihood(shades, torch.tensor(0.2), torch.tensor(-1.0)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_goes_beyond_what_is_told(guidance):
    told, untold = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    both = guided(lambda *_: torch.cat([told, told * 9], dim=1), lambda *_: torch.cat([untold, untold], dim=1), 4, guidance)
    expected = told if guidance == 1 else untold + 3 * (told - untold)
    torch.testing.assert_close(both(told, STEPS), expected)  # of the noise; the variances are not drawn from
    near = guided(lambda *_: told, lambda *_: untold, 4, 1 + 1e-6)
    torch.testing.assert_close(near(told, STEPS), told, rtol=1e-4, atol=1e-4)


def test_the_sampler_finds_the_one_image_that_there_is():
    """With the noise predicted perfectly for data that is a single image, sampling ends at it."""
    target, table = torch.randn(1, 4, 8, 8), Table("cpu")

    def perfect(latents, steps):
        return (latents - table["signal", steps] * target) / table["noise", steps]

    found = sample(perfect, torch.randn(2, 4, 8, 8), 25)
    torch.testing.assert_close(found, target.expand(2, -1, -1, -1), rtol=0, atol=0.03)
    assert diffusion.STEPS == 1000


# --- the distance ----------------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_axes_is_the_closed_form():
    """For diagonal covariances: |m1 - m2|² + the sum of (s1 - s2)²."""
    rng = np.random.default_rng(0)
    scales, means = np.array([[1.0, 2.0, 0.5], [3.0, 2.0, 1.5]]), np.array([[0.0, 1.0, 2.0], [1.0, -1.0, 2.0]])
    white = rng.standard_normal((4000, 3))
    white = (white - white.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    one, other = (moments(white * scale + mean) for scale, mean in zip(scales, means, strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(scales[0] - scales[1]).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_is_that_of_the_matrix_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    one, other = (moments(rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))) for _ in range(2))
    root = sqrtm(one.covariance @ other.covariance).real
    expected = np.square(one.mean - other.mean).sum() + np.trace(one.covariance + other.covariance - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    few = moments(rng.standard_normal((3, 6)))  # fewer samples than numbers: a covariance without full rank
    assert np.isfinite(frechet_distance(few, other)) and frechet_distance(few, other) > 0
