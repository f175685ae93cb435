"""RDT: the released files load strictly, the trap in its norm is real, and the step follows no data."""

import pytest
import torch
from conftest import PARITY
from diffusers import DDPMScheduler
from parity import differences
from pydantic import ValidationError
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from ablation.errors import UserError
from ablation.systems.rdt import diffusion
from ablation.systems.rdt.model.layers import RmsNorm
from ablation.systems.rdt.model.positions import image_table
from ablation.systems.rdt.model.runner import Observation, RDTRunner, adaptor
from ablation.systems.rdt.settings import Adaptors, Architecture, Images
from ablation.systems.rdt.weights import load_weights
from ablation.training.recompute import chosen, recompute

TINY = Architecture(
    hidden_size=32, depth=3, heads=2, action_dim=6, horizon=4, lang_dim=10, lang_length=8, img_dim=12,
    images=Images(history=2, cameras=3, patches=4),
)  # fmt: skip


@pytest.fixture
def rdt() -> RDTRunner:
    """A tiny RDT whose weights are all random; fresh, it would predict zeros."""
    torch.manual_seed(0)
    model = RDTRunner(TINY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def example(batch: int = 2) -> tuple[Observation, torch.Tensor]:
    """An observation and actions of random numbers; the second sentence is shorter."""
    mask = torch.ones(batch, 5, dtype=torch.bool)
    mask[1:, 3:] = False
    observation = Observation(
        lang_tokens=torch.randn(batch, 5, TINY.lang_dim),
        lang_mask=mask,
        img_tokens=torch.randn(batch, TINY.images.tokens, TINY.img_dim),
        state=torch.randn(batch, 1, TINY.action_dim),
        action_mask=(torch.arange(TINY.action_dim) < 4).float().expand(batch, 1, -1),
        frequencies=torch.full((batch,), 25),
    )
    return observation, torch.randn(batch, TINY.horizon, TINY.action_dim)


def step(model: RDTRunner) -> torch.Tensor:
    """A training step with fresh noise, up to the gradients."""
    observation, actions = example()
    steps = torch.randint(0, diffusion.STEPS, actions.shape[:1])
    loss = diffusion.training_loss(model, observation, actions, torch.randn_like(actions), steps)
    loss.backward()
    return loss


def test_a_true_rms_norm_gives_other_actions(monkeypatch):
    """The released weights were trained with a variance about the mean; see RmsNorm."""

    def mean_square(self, x):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)

    monkeypatch.setattr(RmsNorm, "forward", mean_square)
    found = differences("rdt", PARITY / "rdt-tiny")
    wrong = {name for name, difference in found.items() if difference > 1e-4}
    assert wrong == {"model_pred", "model_pred_no_mask", "loss", "predict_action"}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_training_step_reads_no_values(checkpointing):
    """On fake tensors and on the meta device, in half precision: that is how memory and operations are predicted."""
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        model = RDTRunner(TINY)
        recompute(chosen(model.model.blocks, checkpointing))
        assert step(model).shape == ()
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        model = RDTRunner(TINY)
        recompute(chosen(model.model.blocks, checkpointing))
        assert step(model).dtype == torch.float32


def test_half_precision_weights_compute_with_and_without_autocast(rdt):
    observation, actions = example()
    steps = torch.tensor([3, 640])
    reference = rdt(actions, steps, observation)
    plain = rdt.bfloat16()(actions, steps, observation)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = rdt(actions, steps, observation)
    assert plain.dtype == autocast.dtype == torch.bfloat16
    for ours in (plain, autocast):
        assert (ours.float() - reference).norm() < 0.05 * reference.norm()


def test_what_the_mask_hides_has_no_effect(rdt):
    observation, actions = example()
    steps = torch.tensor([3, 640])
    changed = observation.lang_tokens.clone()
    changed[1, 3:] = 100
    plain, other = (rdt(actions, steps, observation._replace(lang_tokens=t)) for t in (observation.lang_tokens, changed))
    assert torch.equal(plain, other)
    assert not torch.allclose(plain, rdt(actions, steps, observation._replace(lang_mask=None)))


def test_samples_are_zero_where_a_robot_has_no_entry(rdt):
    observation, actions = example()
    sampled = diffusion.sample(rdt, observation, torch.randn_like(actions))
    assert sampled.dtype == torch.float32 and (sampled[..., 4:] == 0).all() and (sampled[..., :4] != 0).all()


def test_the_schedule_is_diffusers_own():
    """Diffusers multiplies a thousand rounded fp32 numbers; ours are not rounded."""
    scheduler = DDPMScheduler(diffusion.STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    torch.testing.assert_close(
        diffusion.alphas_cumprod(torch.arange(diffusion.STEPS)), scheduler.alphas_cumprod, atol=1e-6, rtol=1e-5
    )
    _, actions = example()
    noise, steps = torch.randn_like(actions), torch.tensor([0, 999])
    torch.testing.assert_close(
        diffusion.add_noise(actions, noise, steps), scheduler.add_noise(actions, noise, steps), atol=1e-4, rtol=0
    )


def test_fresh_weights_predict_nothing():
    observation, actions = example()
    assert not RDTRunner(TINY)(actions, torch.tensor([3, 640]), observation).any()


@pytest.mark.parametrize(("history", "cameras"), [(1, 3), (2, 1)])
def test_an_axis_of_one_takes_no_part_of_the_position_table(history, cameras):
    table = image_table(8, history, cameras, 2)[0].unflatten(0, (history * cameras, 2))
    assert torch.equal(table[:, 0], table[:, 1])
    places = torch.arange(history * cameras).double()
    torch.testing.assert_close(table[:, 0, 0], places.sin().float())


def test_without_time_and_cameras_the_position_table_is_empty():
    assert not image_table(8, 1, 1, 3).any()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "mp_rank_00_model_states.pt"])
def test_all_released_files_load(tmp_path, rdt, name):
    path, state = tmp_path / name, rdt.state_dict()
    if name.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save({"module": state, "global_steps": 3} if name.startswith("mp_rank") else state, path)
    with torch.device("meta"):
        empty = RDTRunner(TINY)
    load_weights(empty, path)
    assert all(torch.equal(value, state[key]) for key, value in empty.state_dict().items())


def test_mismatches_are_named(tmp_path, rdt):
    state = rdt.state_dict()
    state["model.blocks.0.attn.q_nrom.weight"] = state.pop("model.blocks.0.attn.q_norm.weight")
    state["img_adaptor.0.bias"] = torch.zeros(3)
    torch.save({"module": state}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        load_weights(rdt, tmp_path / "pytorch_model.bin")
    words = [
        "1 parameters missing",
        "1 parameters not in",
        "img_adaptor.0.bias: (3,)",
        "q_nrom.weight looks like model.blocks.0",
    ]
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_absent_file_says_where_it_comes_from(tmp_path, rdt):
    with pytest.raises(UserError, match="hf download robotics-diffusion-transformer/rdt-1b"):
        load_weights(rdt, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"heads": 3}, "does not divide"), ({"hidden_size": 34}, "multiple of 4"), ({"heads": 32}, "two entries")],
)
def test_impossible_sizes_are_refused(sizes, words):
    with pytest.raises(ValidationError, match=words):
        Architecture.model_validate({**TINY.model_dump(), **sizes})


@pytest.mark.parametrize(("layers", "names"), [(1, ["weight", "bias"]), (2, ["0.weight", "0.bias", "2.weight", "2.bias"])])
def test_adaptors_have_the_names_of_the_release(layers, names):
    """models/rdt_runner.py, build_condition_adapter: `linear` is one layer, `mlp2x_gelu` two with a GELU between them."""
    assert list(adaptor(layers, 3, 4).state_dict()) == names


def test_a_network_with_linear_adaptors_runs():
    model = RDTRunner(TINY.model_copy(update={"adaptors": Adaptors(lang=1, img=1, state=1)}))
    assert {"lang_adaptor.weight", "img_adaptor.weight", "state_adaptor.weight"} <= set(model.state_dict())
    assert step(model).isfinite() and model.img_adaptor.weight.grad is not None
