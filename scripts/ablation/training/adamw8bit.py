"""AdamW with its moments in 8 bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"), by bitsandbytes' kernels.

bitsandbytes' own class waits for the device, and rounds weights in 16 bits to the nearest: most updates would be lost.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ablation.training.bits import SIGNED, UNSIGNED, operators

BLOCK = 256  # values that share a scale; fixed in the kernels
SMALL = 4096  # weights with fewer values have moments in fp32, as is usual: they cost nothing and are the most delicate
CHUNK = 2**22  # values that are stepped at a time, which bounds what is held in fp32 meanwhile

State = dict[str, Any]


class AdamW8bit(torch.optim.Optimizer):
    """Steps weights in fp32, and in bf16 with stochastic rounding, by draws from the device's default generator."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.maps: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step of all weights that have a gradient."""
        if closure is not None:
            raise NotImplementedError("a closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter] or self._fresh(parameter)
        state["step"] += 1
        weights, gradient = parameter.view(-1), parameter.grad.view(-1)
        for start in range(0, len(weights), CHUNK):
            part = slice(start, start + CHUNK)
            self._update(weights[part], gradient[part], _part(state, start), group)

    def _update(self, weights: Tensor, gradient: Tensor, state: State, group: dict[str, Any]) -> None:
        wide = weights.float()
        _kernel(gradient.float(), wide, state, group, self._maps(weights.device))
        if weights.dtype == torch.bfloat16:
            weights.copy_(stochastically_rounded(wide))

    def _fresh(self, parameter: nn.Parameter) -> State:
        device, size = parameter.device, parameter.numel()
        blocks = -(-size // BLOCK)
        if size < SMALL:
            moments = {name: torch.zeros(size, device=device) for name in ("exp_avg", "exp_avg_sq")}
        else:
            moments = {name: torch.zeros(size, dtype=torch.uint8, device=device) for name in ("exp_avg", "exp_avg_sq")}
            moments |= {name: torch.zeros(blocks, device=device) for name in ("exp_avg_scale", "exp_avg_sq_scale")}
        self.state[parameter] = {"step": 0, **moments}
        return self.state[parameter]

    def _maps(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self.maps:
            self.maps[device] = SIGNED.to(device), UNSIGNED.to(device)
        return self.maps[device]

    def load_state_dict(self, state_dict: State) -> None:
        """As torch's, which would make numbers of the weight's type of the codes."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for group, kept in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in kept.items() if name != "params"})
        for number, state in state_dict["state"].items():
            device = parameters[number].device
            self.state[parameters[number]] = {
                name: value.to(device, copy=True) if isinstance(value, Tensor) else value for name, value in state.items()
            }


def _part(state: State, start: int) -> State:
    """The state of the :data:`CHUNK` values from ``start`` on."""
    values, blocks = slice(start, start + CHUNK), slice(start // BLOCK, (start + CHUNK) // BLOCK)
    return {
        name: value if name == "step" else value[blocks if name.endswith("scale") else values] for name, value in state.items()
    }


def _kernel(gradient: Tensor, weights: Tensor, state: State, group: dict[str, Any], maps: tuple[Tensor, Tensor]) -> None:
    (first, second), eps, decay, lr, step = group["betas"], group["eps"], group["weight_decay"], group["lr"], state["step"]
    moments, none = (state["exp_avg"], state["exp_avg_sq"]), 0.0  # of another optimizer's numbers
    if "exp_avg_scale" in state:
        scales = state["exp_avg_scale"], state["exp_avg_sq_scale"]
        numbers = first, second, none, none, eps, step, lr
        operators.optimizer_update_8bit_blockwise("adam", gradient, weights, *moments, *numbers, *maps, *scales, decay, 1.0)
    else:
        numbers = none, none, first, second, none, none, eps, decay, step, lr, 1.0
        operators.optimizer_update_32bit("adam", gradient, weights, *moments, None, *numbers)


def stochastically_rounded(values: Tensor) -> Tensor:
    """``values`` [n] in fp32, in place to one of the two neighbours in bf16: the nearer, the more likely; right on average.

    A bf16 number is the upper half of an fp32 number: what is added to the lower half by chance carries as often as it should.
    """
    bits = values.view(torch.int32)
    bits.add_(torch.empty_like(bits).random_(0, 2**16)).bitwise_and_(-(2**16))
    return values
