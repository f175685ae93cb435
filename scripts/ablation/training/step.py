"""The training step: one for the trainer and for whoever wants to know what a step costs.

It logs nothing and reads no value back from the device.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.sweep import Run
from ablation.systems.base import Objective, System
from ablation.training.average import Average
from ablation.training.copies import Copies
from ablation.training.fused import Fused
from ablation.training.optimizer import make_optimizer
from ablation.training.zero import Zero
from ablation.training.zero3 import Zero3

Mark = Callable[[str], None]
Values = dict[str, Tensor]


class Untrainable(UserError):
    """What a strategy trains takes no part in the loss."""


class TrainingStep:
    """The optimizer step of a run, with what it changes: ``model`` and ``optimizer``, as Accelerate has prepared them.

    ``sharing``: how its passes go over a model that processes share. ``average``: the running average of the trained weights,
    where the run keeps one.
    """

    def __init__(self, run: Run, system: System, model: nn.Module, accelerator: Accelerator):
        self.system = system
        together = run.strategy.backward == "summed"
        self.passes = [system.objectives] if together else [(name,) for name in system.objectives]
        optimizer = make_optimizer(model, run.strategy, run.settings.training)
        settings = run.settings.training
        self.average = Average(model, settings) if settings.ema else None
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            kind = Zero3 if run.strategy.distributed == "zero3" else Zero
            self.sharing = kind(run, model, optimizer, accelerator, alike=len(self.passes) == 1)
        else:
            kind = Fused if run.strategy.fused_backward else Copies
            self.sharing = kind(run, model, optimizer, accelerator)
        self.model, self.optimizer = self.sharing.model, self.sharing.optimizer

    def __call__(self, batches: Iterable[dict[str, Tensor]], accumulation: int, mark: Mark) -> Values:
        """One optimizer step over ``accumulation`` batches. ``mark`` is told the phase that begins.

        Returns scalars on the device: ``loss``, the sum of the objectives; where there are several, each under its name; the
        parts of each; and ``grad_norm``, the norm before clipping.
        """
        sums: Values = {}
        mark("forward")  # which begins with the first batch on its way to the device
        with self.sharing.whole_step():
            for number, batch in enumerate(batches, start=1):
                for names in self.passes:
                    with self.sharing.one_pass(last=number == accumulation and names is self.passes[-1]):
                        values = self._forward_backward(batch, names, 1 / accumulation, mark)
                    for name, value in values.items():
                        sums[name] = sums[name] + value if name in sums else value
        mark("optimizer")
        norm = self.sharing.update()
        if self.average is not None:
            self.average.update()
        return {**sums, "grad_norm": norm}

    def lasting(self) -> Iterator[Tensor]:
        """Weights, buffers, optimizer state, average: what is live between steps."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from optimizer_tensors(self.optimizer)
        yield from self.sharing.lasting()
        if self.average is not None:
            yield from self.average.weights

    def _forward_backward(self, batch: dict[str, Tensor], names: Sequence[str], share: float, mark: Mark) -> Values:
        """Some objectives of a batch forward, and one backward pass from their sum; values weighted by ``share``."""
        found = {name: self.system.objective(self.model, batch, name) for name in names}
        loss = reduce(add, (objective.loss for objective in found.values()))
        if not loss.requires_grad:
            raise Untrainable(self._no_part(names))
        mark("backward")
        self.sharing.backward(loss * share)
        values = {"loss": loss.detach() * share}
        for name, objective in found.items():
            values |= self._recorded(name, objective, share)
        mark("forward")
        return values

    def _no_part(self, names: Sequence[str]) -> str:
        own = f" `{names[0]}`, which has a backward pass of its own; set backward: summed, or" if self.passes[1:] else ";"
        return f"nothing that the strategy trains takes part in the loss{own} train other modules"

    def _recorded(self, name: str, objective: Objective, share: float) -> Values:
        """What is told of one objective; its loss is the whole where it is the only one."""
        own = {name: objective.loss.detach() * share} if len(self.system.objectives) > 1 else {}
        return own | {part: value * share for part, value in objective.parts.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """The tensors of an optimizer's state."""
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
