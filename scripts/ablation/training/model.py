"""From settings to a network that is ready: pretrained weights, a strategy or what it trained, the right number formats."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import nn

from ablation.settings import Precision
from ablation.study import FrozenWeights
from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training.host import fetching, keep_in_host, pin
from ablation.training.precision import cast_frozen, cast_trained
from ablation.training.recompute import chosen, reached, recompute
from ablation.training.strategy import apply_strategy, load_trained

FRESH_STD = 0.02  # of random weights: small enough that no activation overflows


def pretrained(system: System, weights: dict[str, Path]) -> nn.Module:
    """The network with its pretrained weights; the fresh ones that they replace are never allocated."""
    with init_empty_weights(include_buffers=False):
        model = system.build()
    system.load_weights(model, weights)
    return model


def for_training(system: System, run: Run, weights: dict[str, Path], device: torch.device) -> nn.Module:
    """The network of ``run`` with its strategy applied, on ``device``, in training mode."""
    model = adapted(system, run, pretrained(system, weights)).to(device).train()
    if device.type == "cuda":
        pin(model)
    return compiled(model, run)


def fresh_for_training(system: System, run: Run, device: torch.device) -> nn.Module:
    """As :func:`for_training`, with random weights that are made on ``device``: to measure a step, not to learn anything.

    Memory on the device is that of the real thing; the host holds no copy and no file is read.
    """
    with init_empty_weights(include_buffers=False):
        model = system.build()
    model = materialise(adapted(system, run, model), device).train()
    if device.type == "cuda":
        pin(model)
    return compiled(model, run)


def adapted(system: System, run: Run, model: nn.Module) -> nn.Module:
    """``model`` with the strategy of ``run``: checkpointing, what is trained, number formats."""
    units, network, strategy = system.recomputable(model), model, run.strategy
    model = apply_strategy(model, strategy, run.rank, run.settings.lora)
    hold_frozen(model, strategy.frozen_weights, run.axes["precision"], system.fp32_modules)
    if strategy.trained_weights == "bf16":
        cast_trained(model, system.fp32_modules)
    units = chosen(reached(units, model), strategy.gradient_checkpointing)
    if strategy.host:
        keep_in_host(network, strategy.host, units)
    recompute(units)
    return model


def hold_frozen(model: nn.Module, form: FrozenWeights | None, precision: Precision, fp32_modules: Sequence[str]) -> None:
    """Hold what ``model`` does not train in few bits, where there is a ``form`` for it, else in the compute type."""
    if form is not None:
        from ablation.training.frozen import quantise_frozen

        quantise_frozen(model, form, precision, fp32_modules)
    cast_frozen(model, precision, fp32_modules)


def compiled(model: nn.Module, run: Run) -> nn.Module:
    """``model``, of which torch compiles the forward pass when it is first called, if the run asks for it."""
    if run.settings.training.compile:
        model.compile()
    return model


def materialise(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` on ``device`` with small normal values for all its parameters; shared ones stay shared."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                values = torch.empty_like(parameter, device=device).normal_(0, FRESH_STD)
                made[parameter] = nn.Parameter(values, parameter.requires_grad)
            setattr(module, name, made[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:  # weights in few bits: codes and their scales
                values = torch.empty_like(buffer, device=device)
                setattr(module, name, values.fill_(FRESH_STD) if buffer.is_floating_point() else values.random_())
    for found in fetching(model):
        found.put({name: torch.empty_like(old, device="cpu").normal_(0, FRESH_STD) for name, old in found.weights.items()})
    return model.to(device)  # the other buffers: what they hold is computed, not learnt


def for_evaluation(
    system: System,
    precision: Precision,
    weights: dict[str, Path],
    trained: Path | None,
    device: torch.device,
    frozen: FrozenWeights | None = None,
) -> nn.Module:
    """The pretrained network, or with what a run in the folder ``trained`` made of it, in evaluation mode.

    ``frozen``: how that run held what it did not train.
    """
    model = pretrained(system, weights)
    if trained is not None:
        model = load_trained(model, trained)
        hold_frozen(model, frozen, precision, system.fp32_modules)  # while what was trained is not
    model.requires_grad_(False)
    cast_frozen(model, precision, system.fp32_modules)
    return model.to(device).eval()


def structure(model: nn.Module) -> str:
    """The modules of ``model`` with their parameters, as text."""
    lines = [str(model), "", f"{'parameter':<90} {'shape':<20} {'type':<10} trained"]
    for name, parameter in model.named_parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        lines.append(f"{name:<90} {tuple(parameter.shape)!s:<20} {kind:<10} {'yes' if parameter.requires_grad else ''}")
    return "\n".join(lines) + "\n"
