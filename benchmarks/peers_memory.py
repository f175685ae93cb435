"""Predicted memory of a step at the released size, ours and the authors', by the same tracing on fake tensors."""

from functools import partial
from pathlib import Path

import torch
from authors import Authors, opened
from peers_sides import Case, adapted, plain_step
from recording import ROOT  # noqa: F401  (which finds the library)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.randomness import CUBLAS_WORKSPACES
from ablation.vram import cuda
from ablation.vram.fake import materialise, tensors_of
from ablation.vram.replay import replay
from ablation.vram.step import trace_step
from ablation.vram.trace import Trace, Tracer

CARD, GIB = "8.9", 2**30
aten = torch.ops.aten


def gib_of(case: Case, upstream: Path) -> dict[str, float]:
    """The most that is allocated, by side."""
    authors = opened(case.system, upstream)
    traces = {"ours": trace_step(case.released, CARD), "authors": traced(case, authors)}
    return {side: replay(trace).allocated / GIB for side, trace in traces.items()}


class Evenly(Tracer):
    """Of rows that a mask selects, it is known that the masks of all ``experts`` together select each row once.

    ``number``: what an integer is that the authors' code reads back.
    """

    def __init__(self, workspace: int, experts: int, number: int):
        super().__init__(workspace)
        self.experts, self.read = experts, number

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is aten.index.Tensor and self._by_rows(args[1]):
            return super().__torch_dispatch__(aten.index.Tensor, types, (args[0], [self._some(args[1][0])]), kwargs)
        if function is aten.index_put_.default and self._by_rows(args[1]):
            return args[0]
        if (
            function is aten.index.Tensor
            and (mask := args[1][0]) is not None
            and mask.dtype == torch.bool
            and self._of_four(mask)
        ):
            sizes = [mask.numel() // 4, *args[0].shape[mask.dim() :]]
            return super().__torch_dispatch__(aten.new_empty.default, types, (args[0], sizes))
        if function is aten._local_scalar_dense.default and args[0].dtype == torch.int64:
            return self.read
        return super().__torch_dispatch__(function, types, args, kwargs)

    def _by_rows(self, indices: list[Tensor | None]) -> bool:
        return self.experts > 0 and len(indices) == 1 and indices[0].dtype == torch.bool and indices[0].dim() == 1

    def _of_four(self, mask: Tensor | None) -> bool:
        """Of a rotation's four quaternions one is taken."""
        return mask is not None and mask.dtype == torch.bool and mask.dim() > 1 and mask.shape[-1] == 4

    def _some(self, mask: Tensor) -> Tensor:
        return mask.new_empty(len(mask) // self.experts, dtype=torch.int64)


def traced(case: Case, authors: Authors) -> Trace:
    """The authors' step, as :func:`ablation.vram.step.trace_step` traces ours."""
    run = case.released
    workspace = cuda.cublas_workspace(CARD, CUBLAS_WORKSPACES)
    with torch.device("meta"):
        model = adapted(authors.build(run.settings), case, authors, run)
    with cuda.like_cuda(), FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        experts = getattr(run.settings.model.architecture, "experts", 0)
        number = authors.read_back(run.settings) if hasattr(authors, "read_back") else 0
        return _trace(run, model, authors, Evenly(workspace, experts, number))


def _trace(run: Run, model: torch.nn.Module, authors: Authors, tracer: Tracer) -> Trace:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, run.strategy.lr, fused=True)  # as ours, so that the networks are compared
    like = load_system(run.settings).fake_batch(1)
    with tracer:
        for tensor in tensors_of(model):
            tracer.add([tensor], "trained_weights" if tensor.requires_grad else "frozen_weights")
        batch = {name: torch.empty_like(value) for name, value in like.items()}
        tracer.label(batch.values(), "batch")
        step = partial(plain_step, model, authors, run, optimizer, tracer.mark)
        del like
        step(batch)
        return tracer.trace()
