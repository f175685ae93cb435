"""Our RDT on the stored cases: the network, its loss, sampling, and the position tables it starts from."""

import re
from typing import Any

import torch
from torch import Tensor

from ablation.systems.rdt import diffusion
from ablation.systems.rdt.model.runner import Observation, RDTRunner, observation_of
from ablation.systems.rdt.settings import Adaptors, Architecture, Images
from ablation.systems.rdt.system import System
from parity_cases import Tensors, gradients
from parity_cases.steps import runs, steps

TABLES = ("x_pos_embed", "lang_cond_pos_embed", "img_cond_pos_embed")


def rdt(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """Adapted conditions, the prediction with and without the language's mask, the loss, sampling, tables, schedule."""
    _same_constants(config["noise_scheduler"])
    model = RDTRunner(architecture(config)).eval()
    out = {f"init.model.{name}": getattr(model.model, name).clone() for name in TABLES}
    model.load_state_dict(weights)
    observation = Observation(
        lang_tokens=inputs["lang_tokens"],
        lang_mask=inputs["lang_attn_mask"],
        img_tokens=inputs["img_tokens"],
        state=inputs["state_tokens"],
        action_mask=inputs["action_mask"],
        frequencies=inputs["ctrl_freqs"],
    )
    actions, noise, steps = inputs["action_gt"], inputs["noise"], inputs["timesteps"]
    noisy, conditions = diffusion.add_noise(actions, noise, steps), model.adapt(observation)
    sampling_steps = config["noise_scheduler"]["num_inference_timesteps"]
    return {
        **out,
        "lang_cond": conditions.lang,
        "img_cond": conditions.img,
        "noisy_action": noisy,
        "state_action_traj": torch.cat([conditions.state, model.embed(noisy, observation.action_mask)], dim=1),
        "model_pred": model(noisy, steps, observation),
        "model_pred_no_mask": model(noisy, steps, observation._replace(lang_mask=None)),
        "loss": diffusion.training_loss(model, observation, actions, noise, steps),
        "predict_action": diffusion.sample(model, observation, inputs["sample_noise"], sampling_steps),
        "sample_timesteps": diffusion.solver(sampling_steps).timesteps,
        "ddpm_alphas_cumprod_head_tail": _head_and_tail(),
    }


def rdt_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The training loss, and its gradient for every parameter."""
    _same_constants(config["model"]["noise_scheduler"])
    model = RDTRunner(architecture(config["model"])).train()
    model.load_state_dict(weights)
    with torch.enable_grad():
        loss = diffusion.training_loss(model, observation_of(inputs), inputs["actions"], inputs["noise"], inputs["diffusion"])
        loss.backward()
    return {"loss": loss, **gradients(model)}


def rdt_steps(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The steps of every strategy."""
    content = {
        "model": {"architecture": architecture(config["model"]).model_dump()},
        "data": {"text_length": inputs["lang_mask"].shape[-1]},
    }
    return {
        name: value
        for run in runs("rdt-batch", config, **content)
        for name, value in steps(run, System(run.settings), weights, inputs).items()
    }


def architecture(config: dict[str, Any]) -> Architecture:
    """The sizes of a case."""
    history, cameras, patches = config["img_grid"]
    if patches > 0:
        raise SystemExit("the case tells the patches of an image apart, the release does not")
    return Architecture(
        hidden_size=config["hidden_size"],
        depth=config["depth"],
        heads=config["num_heads"],
        action_dim=config["action_dim"],
        horizon=config["pred_horizon"],
        lang_dim=config["lang_token_dim"],
        lang_length=config["max_lang_cond_len"],
        img_dim=config["img_token_dim"],
        images=Images(history=history, cameras=cameras, patches=-patches),
        adaptors=Adaptors(**{kind: _layers(config[f"{kind}_adaptor"]) for kind in ("lang", "img", "state")}),
    )


def _layers(adaptor: str) -> int:
    """``linear`` or ``mlp3x_gelu`` -> the number of linear layers."""
    return 1 if adaptor == "linear" else int(re.fullmatch(r"mlp(\d+)x_gelu", adaptor)[1])


def _head_and_tail() -> Tensor:
    """The first and the last three values of the schedule."""
    last = diffusion.STEPS - 1
    return diffusion.alphas_cumprod(torch.tensor([0, 1, 2, last - 2, last - 1, last]))


def _same_constants(scheduler: dict[str, Any]) -> None:
    """The constants of the release are constants of ours; a case with others is not comparable."""
    ours = {
        "num_train_timesteps": diffusion.STEPS,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "sample",
        "clip_sample": False,
    }
    for key, value in ours.items():
        if scheduler[key] != value:
            raise SystemExit(f"the case has {key} = {scheduler[key]}, the release {value}")
