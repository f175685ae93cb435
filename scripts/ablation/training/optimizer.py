"""The optimizer of a run: one construction for the trainer and for whoever measures its step."""

import torch
from torch import nn

from ablation.settings import Training
from ablation.study import Strategy


def make_optimizer(model: nn.Module, strategy: Strategy, settings: Training) -> torch.optim.Optimizer:
    """AdamW over what ``model`` trains, as ``strategy`` asks for it, with its peak learning rate."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared = {"lr": strategy.lr, "betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
    if strategy.optimizer == "adamw8bit":
        from ablation.training.adamw8bit import AdamW8bit

        return AdamW8bit(parameters, **shared)
    return torch.optim.AdamW(parameters, **shared, fused=True)  # one kernel for all, on either device, without temporaries
