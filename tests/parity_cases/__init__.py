"""How each system answers a stored case: one module a system."""

from torch import Tensor

Tensors = dict[str, Tensor]
