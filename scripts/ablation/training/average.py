"""The exponential moving average of the trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ablation.settings import Training
from ablation.training.schedules import average_decay


class Average:
    """The average of what ``model`` trains, in fp32, beside it on its device.

    It begins as the weights are. Its decay is that of :func:`~ablation.training.schedules.average_decay`: while that warms
    up, the first weights, which are not trained yet, are soon forgotten.
    """

    def __init__(self, model: nn.Module, training: Training):
        self.training, self.updates = training, 0
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.names, self.trained = list(trained), list(trained.values())
        self.weights = [parameter.detach().to(torch.float32, copy=True) for parameter in self.trained]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self.updates += 1
        share = 1 - average_decay(self.updates, self.training)
        torch._foreach_lerp_(self.weights, [parameter.detach() for parameter in self.trained], share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average for its weights."""
        own = [parameter.detach().clone() for parameter in self.trained]
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(own)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes up."""
        return {"updates": self.updates, "weights": dict(zip(self.names, self.weights, strict=True))}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken."""
        self.updates = state["updates"]
        for name, weight in zip(self.names, self.weights, strict=True):
            weight.copy_(state["weights"][name])

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.trained, weights, strict=True):
            parameter.copy_(weight)
