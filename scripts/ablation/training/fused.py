"""The optimizer's step within the backward pass: each weight is stepped when its gradient is there, which is then forgotten."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakMethod

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ablation.sweep import Run
from ablation.training.copies import Copies


class Fused(Copies):
    """How the one pass of a step goes over the model of a single process: no two gradients need exist at a time.

    Autograd accumulates a weight's gradient once all that depends on the weight has gone backward, so none is stepped too
    early. The numbers are those of :class:`Copies`, without clipping.
    """

    def __init__(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator):
        super().__init__(run, model, optimizer, accelerator)
        self.inner = optimizer
        self.norms: dict[nn.Parameter, Tensor] = {}
        self.group: dict[str, Any] = optimizer.param_groups[0]
        self.all: list[nn.Parameter] = self.group["params"]
        step = WeakMethod(self._step)  # garbage collection does not look into these hooks: the model would never go
        for parameter in self.all:
            parameter.register_post_accumulate_grad_hook(lambda parameter: step()(parameter))

    @torch.no_grad()
    def _step(self, parameter: nn.Parameter) -> None:
        self.norms[parameter] = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
        self.group["params"] = [parameter]
        self.inner.step()
        self.group["params"] = self.all
        parameter.grad = None

    def reached(self) -> Iterable[nn.Parameter]:
        """The weights that have got a gradient in the step under way, which are stepped already."""
        return self.norms

    def update(self) -> Tensor:
        """All is done; returns the norm of the gradients."""
        norms = [self.norms.pop(parameter) for parameter in self.all if parameter in self.norms]
        return torch.linalg.vector_norm(torch.stack(norms))
