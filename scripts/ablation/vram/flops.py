"""The floating-point operations of a training step, counted on fake tensors: no GPU, weights or data."""

from collections.abc import Callable, Sequence

import torch
from accelerate.state import AcceleratorState
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.accelerator import make_accelerator
from ablation.training.model import adapted
from ablation.training.step import TrainingStep
from ablation.vram.fake import materialise
from ablation.vram.trace import Tracer

aten = torch.ops.aten
CPU = torch.device("cpu")
ANCHORS = 2  # ranks of a strategy that are counted; the operations are affine in the rank


def flops_per_sample(run: Run) -> int:
    """What a step of ``run`` executes for each sample: forward, recomputed and backward.

    Matrix products, convolutions and attention count, with two operations a multiplication and addition. The number format
    makes no difference to it, nor how the samples are spread over batches.
    """
    run = run.with_axes(batch=1, accumulation=1, precision="fp32")
    system = load_system(run.settings)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = make_accelerator("fp32", CPU)
    with torch.device("meta"):
        model = adapted(system, run, system.build()).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        step, batch = TrainingStep(run, system, model, accelerator), system.fake_batch(1)
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter, Tracer():  # which answers for fake values
            step([batch], 1, lambda phase: None)
    return counter.get_total_flops()


def frozen_shares(run: Run, cuts: Sequence[int]) -> dict[int, float]:
    """The share of the forward pass, without adapters, that lies before each of ``cuts`` (:mod:`ablation.prefix`)."""
    system = load_system(run.settings)
    with torch.device("meta"):
        model = system.build().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True), Tracer():
        materialise(model)
        batch = system.fake_batch(1)
        whole = _counted(lambda: [system.objective(model, batch, name) for name in system.objectives])
        value = batch[system.prefix_input][0]
        return {cut: _counted(lambda cut=cut: system.prefix(model, value, [cut])) / whole for cut in cuts}


def _counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    return counter.get_total_flops()


class Flops:
    """:func:`flops_per_sample` of many ``runs``: those between two ranks of a strategy are computed, not counted."""

    def __init__(self, runs: list[Run], count: Callable[[Run], int] = flops_per_sample):
        self._count = count
        self._known: dict[tuple, int] = {}
        self._ranks: dict[tuple, set[int | None]] = {}
        for run in runs:
            self._ranks.setdefault(_family(run), set()).add(run.rank)

    def __call__(self, run: Run) -> float:
        ranks = sorted(self._ranks[_family(run)] - {None})
        if len(ranks) <= ANCHORS:
            return self._counted(run)
        low, high = ranks[0], ranks[-1]
        first, last = (self._counted(run.with_axes(rank=rank)) for rank in (low, high))
        return first + (last - first) * (run.rank - low) / (high - low)

    def _counted(self, run: Run) -> int:
        key = _family(run), run.rank
        if key not in self._known:
            self._known[key] = self._count(run)
        return self._known[key]


def _family(run: Run) -> tuple:
    """All that the operations for a sample depend on, but the rank."""
    return id(run.settings), run.axes["strategy"], run.strategy.gradient_checkpointing


def _attention(q, k, v, *_, **__) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(gradient, q, k, v, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient, q, k, v)


ATTENTION = {  # the kernels that fake CPU tensors take, which torch's table lacks; the formulas get shapes
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
