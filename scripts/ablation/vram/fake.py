"""Models without memory: built on the meta device, then moved onto fake CPU tensors."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ablation.training.host import fetching


def materialise(model: nn.Module) -> None:
    """Give every parameter and buffer of ``model`` a storage of its own; ties and ``requires_grad`` stay.

    Call inside a FakeTensorMode. (``Module.to`` and ``to_empty`` fail there.)
    """
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    tensors[name] = made.setdefault(id(old), _fake(old))
    for found in fetching(model):
        found.put({name: _fake(old) for name, old in found.weights.items()})


def _fake(old: Tensor) -> Tensor:
    new = torch.empty(old.shape, dtype=old.dtype)
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers in the order in which ``Module.to`` moves them, each once."""
    seen: set[int] = set()
    for tensor in _walk(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _walk(module: nn.Module) -> Iterator[Tensor]:
    for child in module.children():
        yield from _walk(child)
    yield from (
        tensor for tensors in (module._parameters, module._buffers) for tensor in tensors.values() if tensor is not None
    )
