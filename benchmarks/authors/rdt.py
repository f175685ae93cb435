"""RDT: the runner with its loss."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ablation.systems.rdt.settings import SystemSettings
from authors import first_on_path

REPOSITORY = "thu-ml/RoboticsDiffusionTransformer"
FILES = ("models/rdt_runner.py", "models/rdt/model.py")
NOISE = {"num_train_timesteps": 1000, "num_inference_timesteps": 5, "beta_schedule": "squaredcos_cap_v2"}

runner = None  # of theirs, once it is imported


class _Draws:
    """Stands for torch in their module: noise and diffusion steps are those of the batch."""

    def __init__(self):
        self.noise = self.steps = None

    def __getattr__(self, name: str):
        return getattr(torch, name)

    def randn(self, *_args, **_kwargs) -> Tensor:
        return self.noise

    def randint(self, *_args, **_kwargs) -> Tensor:
        return self.steps


draws = _Draws()


def imports(folder: Path) -> None:
    """The runner, which imports the network."""
    global runner
    first_on_path(folder)
    import models.rdt_runner as runner

    runner.torch = draws


def build(settings: SystemSettings) -> nn.Module:
    """The runner in fp32."""
    a = settings.model.architecture
    adaptors = {f"{name}_adaptor": f"mlp{getattr(a.adaptors, name)}x_gelu" for name in ("lang", "img", "state")}
    network = {"hidden_size": a.hidden_size, "depth": a.depth, "num_heads": a.heads}
    noise = {**NOISE, "prediction_type": "sample", "clip_sample": False}
    with contextlib.redirect_stdout(io.StringIO()), _without_values():
        return runner.RDTRunner(
            action_dim=a.action_dim,
            pred_horizon=a.horizon,
            config={"rdt": network, **adaptors, "noise_scheduler": noise},
            lang_token_dim=a.lang_dim,
            img_token_dim=a.img_dim,
            state_token_dim=a.action_dim,
            max_lang_cond_len=a.lang_length,
            img_cond_len=a.images.tokens,
            img_pos_embed_config=[("image", (a.images.history, a.images.cameras, -a.images.patches))],
            lang_pos_embed_config=[("lang", -a.lang_length)],
            dtype=torch.float32,
        )


def _without_values() -> contextlib.AbstractContextManager:
    """On the meta device no tables of positions, which NumPy makes, and the tables of noise on the CPU."""
    if torch.get_default_device().type != "meta":
        return contextlib.nullcontext()
    found = contextlib.ExitStack()
    found.enter_context(patch.object(runner.RDT, "initialize_weights", lambda _: None))
    for name in ("DDPMScheduler", "DPMSolverMultistepScheduler"):
        found.enter_context(patch.object(runner, name, _on_cpu(getattr(runner, name))))
    return found


def _on_cpu(make: Callable) -> Callable:
    def made(**settings):
        with torch.device("cpu"):
            return make(**settings)

    return made


def blocks(model: nn.Module) -> Sequence[nn.Module]:
    """Every block."""
    return model.model.blocks


def loss(model: nn.Module, settings: SystemSettings, batch: dict[str, Tensor]) -> Tensor:
    """The error of the clean actions, with the noise and the diffusion steps of the batch."""
    draws.noise, draws.steps = batch["noise"], batch["diffusion"]
    return model(
        lang_tokens=batch["lang_tokens"].float(),
        lang_attn_mask=batch["lang_mask"],
        img_tokens=batch["img_tokens"].float(),
        state_tokens=batch["state"],
        action_gt=batch["actions"],
        action_mask=batch["mask"],
        ctrl_freqs=batch["frequency"],
    )
