"""Data-parallel training: each process has a copy of the model, and of the optimizer; one process is the simplest case."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from ablation.sweep import Run
from ablation.training.strategy import trained_of


@torch.no_grad()
def put(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Give weights the values of the same names."""
    for name, value in values.items():
        weights[name].copy_(value)


class Copies:
    """How the passes of a step go over a model that each process has whole."""

    together = False  # the first process can look at its model alone

    def __init__(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator):
        self.accelerator, self.network, self.clip = accelerator, model, run.settings.training.clip
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def whole_step(self) -> AbstractContextManager:
        """Around all passes of a step."""
        return nullcontext()

    def one_pass(self, last: bool) -> AbstractContextManager:
        """Around one forward and backward pass: the last one shares the gradients of all."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def backward(self, loss: Tensor) -> None:
        """The backward pass of one of them."""
        self.accelerator.backward(loss)

    def reached(self) -> Iterable[nn.Parameter]:
        """The weights that have got a gradient in the step under way."""
        return (parameter for parameter in self.model.parameters() if parameter.grad is not None)

    def update(self) -> Tensor:
        """Clip, step, forget the gradients; returns their norm before clipping."""
        trained = list(self.reached())
        self.accelerator.unscale_gradients()
        norm = clip_grad_norm_(trained, self.clip) if self.clip else get_total_norm([each.grad for each in trained])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def lasting(self) -> Iterator[Tensor]:
        """What is live between steps beside weights, buffers and the optimizer's own state: nothing."""
        return iter(())

    def trained(self) -> dict[str, Tensor]:
        """The trained weights, by name."""
        return trained_of(self.network)

    def own_state(self) -> dict[str, Any]:
        """What only this process has: nothing."""
        return {}

    def shared_state(self) -> dict[str, Any]:
        """The optimizer and the loss scaler, the same in every process."""
        scaler = self.accelerator.scaler
        return {"optimizer": self.optimizer.state_dict(), "scaler": None if scaler is None else scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a state of ``trained``, :meth:`shared_state` and :meth:`own_state` was taken."""
        put(self.trained(), state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
