"""The optimizer of a run: one construction for the trainer and for whoever measures its step."""

import torch
from torch import nn

from ablation.settings import Training


def make_optimizer(model: nn.Module, lr: float, settings: Training) -> torch.optim.AdamW:
    """AdamW over what ``model`` trains, with peak learning rate ``lr``."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,  # one kernel for all, on either device, without temporaries
    )
