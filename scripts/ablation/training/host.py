"""Frozen weights in host memory: each module's are copied to the device when it computes, and again for its gradient.

They are no parameters of the model while they are there: whatever moves, counts or saves parameters leaves them alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ablation.ending import is_ending
from ablation.training.targets import modules


class Piece(NamedTuple):
    """A view of a module's weight, in place of which autograd keeps this."""

    name: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Fetching:
    """The forward pass of ``module``, whose weights lie in host memory.

    ``recomputed``: whether it lies in a module whose activations are; then autograd keeps nothing of it anyway.
    """

    def __init__(self, module: nn.Module, recomputed: bool):
        self.module, self.forward, self.recomputed = module, module.forward, recomputed
        self.weights = {name: parameter.data for name, parameter in module.named_parameters(recurse=False)}
        for name in self.weights:
            del module._parameters[name]
        self._show(self.weights)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        device = next(x.device for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        fetched = {name: self._fetch(name, device) for name in self.weights}
        self._show(fetched)
        try:
            with nullcontext() if self.recomputed and not is_ending() else self._kept_as_pieces(fetched, device):
                return self.forward(*args, **kwargs)
        finally:
            self._show(self.weights)

    def put(self, weights: dict[str, Tensor]) -> None:
        """Have other tensors for the weights."""
        self.weights = weights
        self._show(weights)

    def _fetch(self, name: str, device: torch.device) -> Tensor:
        return self.weights[name].to(device, non_blocking=True, copy=True)

    def _show(self, weights: dict[str, Tensor]) -> None:
        self.module.__dict__.update(weights)  # plain attributes

    def _kept_as_pieces(self, fetched: dict[str, Tensor], device: torch.device) -> saved_tensors_hooks:
        names = {weight.untyped_storage()._cdata: name for name, weight in fetched.items()}

        def pack(x: Tensor) -> Tensor | Piece:
            name = names.get(x.untyped_storage()._cdata)
            return x if name is None else Piece(name, x.size(), x.stride(), x.storage_offset())

        def unpack(kept: Tensor | Piece) -> Tensor:
            return self._fetch(kept.name, device).as_strided(*kept[1:]) if isinstance(kept, Piece) else kept

        return saved_tensors_hooks(pack, unpack)


def keep_in_host(model: nn.Module, patterns: Iterable[str], recomputed: Iterable[nn.Module]) -> None:
    """Keep what is frozen of the layers that ``patterns`` name in host memory. ``recomputed``: modules whose activations are.

    Of layers, which have no module within: what others hold, a few tokens, is used outside of their forward pass as well.
    """
    within = {module for unit in recomputed for module in unit.modules()}
    for name in modules(model, patterns, "host"):
        module = model.get_submodule(name)
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if not trained and next(module.children(), None) is None:
            module.forward = Fetching(module, module in within)


def fetching(model: nn.Module) -> Iterator[Fetching]:
    """The modules of ``model`` whose weights lie in host memory."""
    for module in model.modules():
        if isinstance(found := module.__dict__.get("forward"), Fetching):
            yield found


def pin(model: nn.Module) -> None:
    """Lock what lies in host memory into place, so that a GPU copies it without the host's help."""
    for found in fetching(model):
        found.put({name: weight.pin_memory() for name, weight in found.weights.items()})
