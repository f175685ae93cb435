"""What ZeRO-3 does to a model's modules, done to one whose step is traced (DeepSpeed 0.19.8, ``deepspeed/runtime/zero``)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.utils._pytree import tree_map_only

from ablation.vram.trace import Call, Modules, Tracer


class ModuleCalls:
    """Watches a model while its step is traced, as DeepSpeed does (parameter_offload.py, ``setup_zero_stage3_hooks``).

    To a module's own parameters count others that are read while it is the innermost module under way
    (``register_external_parameter``). A module is seen to leave its backward pass only by inputs that need a gradient and are
    passed by position.
    """

    def __init__(self, model: nn.Module, tracer: Tracer):
        self.found = Modules([], [])
        self._under_way: list[int] = []
        for number, module in enumerate(model.modules()):
            self.found.parameters.append({tracer.number(parameter) for parameter in module.parameters(recurse=False)})
            module._parameters = _Watched(module._parameters, partial(self._read, number, tracer))
            self._watch(number, module, tracer)

    def _read(self, owner: int, tracer: Tracer, parameter: nn.Parameter) -> None:
        in_backward = torch._C._current_graph_task_id() != -1
        if self._under_way and owner not in self._under_way and not in_backward:
            self.found.parameters[self._under_way[-1]].add(tracer.number(parameter))

    def _watch(self, number: int, module: nn.Module, tracer: Tracer) -> None:
        waiting = 0  # inputs whose gradient is still to come

        def call(enters: bool, forward: bool) -> None:
            self.found.calls.append(Call(tracer.now, number, enters, forward))

        def gradient_done() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                call(enters=False, forward=False)

        def wait_for(x: Tensor) -> Tensor:
            nonlocal waiting
            waiting += x.requires_grad
            return _Tell.apply(x, gradient_done)

        def before(_, inputs: tuple) -> tuple:
            nonlocal waiting
            call(enters=True, forward=True)
            self._under_way.append(number)
            waiting = 0
            return tree_map_only(Tensor, wait_for, inputs)

        def after(_, inputs: tuple, outputs):
            self._under_way.pop()
            call(enters=False, forward=True)
            return tree_map_only(Tensor, lambda x: _Tell.apply(x, lambda: call(enters=True, forward=False)), outputs)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)


class _Watched(dict):
    """A module's parameters; tells of each that is read."""

    def __init__(self, parameters: dict, told: Callable[[nn.Parameter], None]):
        super().__init__(parameters)
        self._told = told

    def __getitem__(self, name: str) -> nn.Parameter | None:
        parameter = super().__getitem__(name)
        if parameter is not None:
            self._told(parameter)
        return parameter


class _Tell(torch.autograd.Function):
    """The identity; calls back when a gradient passes."""

    @staticmethod
    def forward(ctx, x: Tensor, callback: Callable[[], None]) -> Tensor:
        ctx.callback = callback
        return x.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        ctx.callback()
        return gradient, None


@contextmanager
def zero3_linear() -> Iterator[None]:
    """Inside, linear layers are those of ZeRO-3: they keep their input, also where the weight is frozen (linear.py)."""
    usual = nn.functional.linear
    nn.functional.linear = lambda x, weight, bias=None: _Linear.apply(x, weight, bias)
    try:
        yield
    finally:
        nn.functional.linear = usual


class _Linear(torch.autograd.Function):
    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        if x.dim() == 2 and bias is not None:
            return torch.addmm(bias, x, weight.t())
        out = x.matmul(weight.t())
        if bias is not None:
            out += bias
        return out

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx, gradient: Tensor):
        x, weight, _ = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        for_x = gradient.matmul(weight) if ctx.needs_input_grad[0] else None
        for_weight = rows.t().matmul(x.reshape(-1, x.shape[-1])) if ctx.needs_input_grad[1] else None
        return for_x, for_weight, rows.sum(0) if ctx.needs_input_grad[2] else None
