"""A step reads nothing back from the device, but for the sizes of experts' groups: on a GPU each read waits for what is queued.

Nor does it write out what attention weighs by: each attention is one operator, for which a GPU has flash kernels.
"""

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.systems.hunyuan3d.model.moe import MixtureOfExperts
from ablation.training.accelerator import make_accelerator
from ablation.training.model import fresh_for_training
from ablation.training.step import TrainingStep

CPU = torch.device("cpu")
READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
    "aten::_unique2",
}
SIZES = "ablation::on_host"  # where the groups of experts end; once a mixture, and again where it is recomputed
HEADS = 4  # dimensions of attention's weights: batch, heads, queries, keys


class Reads(TorchDispatchMode):
    """Collects the operators whose result depends on values that the host would have to wait for, and the attentions."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.fused, self.written_out, self.sizes = 0, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition(".")[0]
        if name in READS or (name.startswith("aten::index") and _by_mask(args)):
            self.found.append(name)
        self.sizes += name == SIZES
        self.fused += name.startswith("aten::_scaled_dot_product")
        self.written_out += name == "aten::_softmax" and args[0].dim() >= HEADS
        return function(*args, **(kwargs or {}))


def _by_mask(args) -> bool:
    places = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(each, torch.Tensor) and each.dtype in (torch.bool, torch.uint8) for each in places)


@pytest.mark.parametrize("study", sorted(path.stem for path in (ROOT / "config/studies").glob("*.yaml")))
def test_a_step_reads_nothing_back(study):
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", {"scale": "demo"}), study)
    for run in {run.axes["strategy"]: run for run in reversed(runs) if run.strategy.distributed == "ddp"}.values():
        system = load_system(run.settings)
        AcceleratorState._reset_state(True)
        accelerator = make_accelerator("fp32", CPU)
        step = TrainingStep(run, system, fresh_for_training(system, run, CPU), accelerator)
        batch = system.fake_batch(1)
        with Reads() as reads:
            step([batch], 1, lambda phase: None)
        assert not reads.found, f"{run.id}: {sorted(set(reads.found))}"
        assert reads.fused and not reads.written_out, run.id
        mixtures = sum(isinstance(module, MixtureOfExperts) for module in step.model.modules())
        assert reads.sizes <= mixtures * len(step.passes) * (2 if run.strategy.gradient_checkpointing else 1), run.id
    AcceleratorState._reset_state(True)


def test_what_is_read_back_is_found():
    with Reads() as reads:
        x = torch.ones(3)
        (x.sum().item(), x[x > 0], x.nonzero(), x.expand(1, 1, 3, 3).softmax(-1))
    assert set(reads.found) == {"aten::_local_scalar_dense", "aten::index", "aten::nonzero"} and reads.written_out
