"""How the stored cases of Hunyuan3D's shape transformer are computed by ours."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from ablation.systems.hunyuan3d.flow import flow_step, sample, times
from ablation.systems.hunyuan3d.model.dit import ShapeTransformer
from ablation.systems.hunyuan3d.settings import Architecture
from ablation.systems.hunyuan3d.system import System
from parity_cases import Tensors, gradients
from parity_cases.steps import runs, steps

# What the released network does not use, and ours therefore does not have.
ABSENT = {"with_decoupled_ca": False, "use_attention_pooling": False, "qk_norm_type": "rms", "use_pos_emb": False}


def architecture(config: dict[str, Any]) -> Architecture:
    """Ours for the keyword arguments of ``HunYuanDiTPlain``."""
    if wrong := [key for key, value in ABSENT.items() if config.get(key, value) != value]:
        raise SystemExit(f"the case sets {', '.join(wrong)} to other values than the release")
    return Architecture(
        latents=config["input_size"],
        channels=config["in_channels"],
        condition_tokens=config["text_len"],
        condition_dim=config["context_dim"],
        dim=config["hidden_size"],
        depth=config["depth"],
        heads=config["num_heads"],
        qk_norm=config.get("qk_norm", True),
        qkv_bias=config.get("qkv_bias", False),
        moe_layers=config["num_moe_layers"],
        experts=config["num_experts"],
        experts_per_token=config["moe_top_k"],
    )


def hunyuan3d_dit(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """Velocity, every block's output, a training step with its gradients, guided sampling."""
    model = ShapeTransformer(architecture(config["model"]))
    model.load_state_dict(weights)
    out = _velocity(model.eval(), inputs)
    with torch.enable_grad():
        out.update(_training(model.train(), inputs))
    return _WithSamples(out, model, inputs)


def _velocity(model: ShapeTransformer, inputs: Tensors) -> Tensors:
    out: Tensors = {}

    def keep(name: str):
        return lambda _module, _inputs, output: out.update({name: output})

    hooks = [block.register_forward_hook(keep(f"block_out.{i}")) for i, block in enumerate(model.blocks)]
    out["velocity_eval"] = model(inputs["x"], inputs["t"], inputs["context"])
    for hook in hooks:
        hook.remove()
    return out


def hunyuan3d_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The training loss, and its gradient for every parameter."""
    model = ShapeTransformer(architecture(config["model"])).train()
    model.load_state_dict(weights)
    with torch.enable_grad():
        loss = _loss(model, inputs)
        loss.backward()
    return {"loss": loss, **gradients(model)}


def hunyuan3d_steps(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The steps of every strategy."""
    sizes = architecture(config["model"])
    model = {
        "architecture": sizes.model_dump(),
        "autoencoder": {"latents": sizes.latents, "channels": sizes.channels},
        "conditioner": {"image_size": 42, "dim": sizes.condition_dim},
    }
    ours = {
        name.replace("lora.", "lora.model.") if name.startswith("lora.") else f"model.{name}": weights[name] for name in weights
    }
    return {
        name: value
        for run in runs("hunyuan3d-4090", config, model=model)
        for name, value in steps(run, Encoded(run.settings), ours, inputs).items()
    }


class Encoded(System):
    """Ours without the frozen encoders: the batches hold what those would give."""

    def build(self) -> nn.Module:
        """The transformer alone, where the whole has it."""
        return Transformer(self.settings.model.architecture)


class Transformer(nn.Module):
    """Its forward pass is the training objective, as that of the whole."""

    def __init__(self, sizes: Architecture):
        super().__init__()
        self.model = ShapeTransformer(sizes)

    def forward(self, batch: Tensors) -> Tensor:
        """The flow's loss, a scalar."""
        return _loss(self.model, batch)


def _loss(model: ShapeTransformer, batch: Tensors) -> Tensor:
    return flow_step(model, batch["data"], batch["flow_noise"], batch["time"], batch["condition"]).loss


class _WithSamples(dict[str, Tensor]):
    """Outputs, and the samples of whatever steps and guidance are asked for by name."""

    def __init__(self, outputs: Tensors, model: ShapeTransformer, inputs: Tensors):
        super().__init__(outputs)
        self.model, self.inputs = model.eval(), inputs

    def get(self, name: str, default: Tensor | None = None) -> Tensor | None:
        """``sample.steps4.cfg1.5`` is computed, and the schedule's ``.sigmas`` and ``.timesteps`` (in thousandths)."""
        found = re.fullmatch(r"sample\.steps(\d+)\.cfg([\d.]+?)(\.sigmas|\.timesteps)?", name)
        if not found:
            return super().get(name, default)
        steps, guidance, what = int(found[1]), float(found[2]), found[3]
        if what:
            return times(steps) if what == ".sigmas" else 1000 * times(steps)[:-1]
        return sample(self.model, self.inputs["x0"], self.inputs["context"], steps, guidance)


def _training(model: ShapeTransformer, inputs: Tensors) -> Tensors:
    balances: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, routing: balances.append(routing.balance))
        for name, module in model.named_modules()
        if re.fullmatch(r"blocks\.\d+\.moe\.gate", name)
    ]
    step = flow_step(model, inputs["x1"], inputs["x0"], inputs["t_train"], inputs["context"])
    step.loss.backward()
    for hook in hooks:
        hook.remove()
    out = {"loss": step.loss, "pred": step.predicted, "target": step.target, "x_t": step.between}
    if balances:
        out["moe_aux_losses"] = torch.stack(balances)
    return {f"train.{name}": value.detach() for name, value in (out | gradients(model)).items()}
