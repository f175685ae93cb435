"""How each system answers a stored case: one module a system."""

from torch import Tensor, nn

Tensors = dict[str, Tensor]


def gradients(model: nn.Module) -> Tensors:
    """Of each parameter that has one, under ``grad.NAME``."""
    return {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
