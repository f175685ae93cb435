"""Training a small network from nothing: what the programs that make the demos' networks share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

CLIP, MEMORY = 1.0, 0.98  # of the gradient's norm; of the loss that is shown


def train(model: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float, what: str) -> None:
    """AdamW with one cycle of the learning rate; ``loss`` draws a batch each time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.05, cycle_momentum=False)
    average = None
    progress = tqdm(range(steps), desc=what, mininterval=5)
    for step in progress:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        average = value.item() if average is None else MEMORY * average + (1 - MEMORY) * value.item()
        if step % 50 == 49:
            progress.set_postfix(loss=f"{average:.5f}")
