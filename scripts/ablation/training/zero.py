"""DeepSpeed's ZeRO (Rajbhandari et al. 2020): each process keeps a part of the gradients and of the optimizer (stage 2).

DeepSpeed holds what is trained in the compute type too, and steps on fp32 copies of its parts.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, convert_outputs_to_fp32
from torch import Tensor, nn

from ablation.sweep import Run
from ablation.training.copies import put
from ablation.training.precision import COMPUTE
from ablation.training.processes import bound_all_groups
from ablation.training.strategy import trained_of
from ablation.vram.sharding.rank import sharding_of


def deepspeed_plugin(run: Run) -> DeepSpeedPlugin:
    """The configuration, with the numbers that the memory is predicted by."""
    from deepspeed.ops import __compatible_ops__  # only where it is used: it takes seconds to load

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    __compatible_ops__["deepspeed_shm_comm"] = False  # for CPUs: compiled at the first use, and outlived by its shared memory
    sharding = sharding_of(run)
    zero: dict[str, Any] = {
        "stage": int(sharding.method[-1]),
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": sharding.bucket,
        "allgather_bucket_size": sharding.bucket,
    }
    if sharding.method == "zero3":
        zero |= {f"stage3_{name}": value for name, value in asdict(sharding.limits).items()}
    if sharding.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    content = {
        "train_micro_batch_size_per_gpu": run.axes["batch"],
        "gradient_accumulation_steps": 1,  # the step says itself which backward pass is the last
        "gradient_clipping": run.settings.training.clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW steps on either device, and nothing is compiled
        "zero_optimization": zero,
    }
    if run.axes["precision"] == "bf16":
        content["bf16"] = {"enabled": True}
    return DeepSpeedPlugin(hf_ds_config=content)


class Zero:
    """How the passes of a step go over a DeepSpeed engine.

    Where several backward passes of a step reach different parameters, DeepSpeed 0.19 loses the offloaded gradients of those
    that the last pass leaves out, and adds those of the step before to those that the first leaves out. So such gradients are
    gathered in each process and reduced once; only where all passes are alike is each reduced as it comes.
    """

    together = False  # the first process can look at its model alone

    def __init__(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, alike: bool):
        kind = COMPUTE[run.axes["precision"]]
        if kind != torch.float32:  # Accelerate leaves the forward pass of DeepSpeed's models without autocast
            model.forward = convert_outputs_to_fp32(torch.autocast(accelerator.device.type, dtype=kind)(model.forward))
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.alike = alike
        bound_all_groups(run.settings.compute.patience_min)

    @contextmanager
    def whole_step(self) -> Iterator[None]:
        """Around all passes of a step."""
        self.model.set_gradient_accumulation_boundary(True)  # as what comes after takes it
        with nullcontext() if self.alike else self.model.coalesce_grad_reduction():
            yield

    @contextmanager
    def one_pass(self, last: bool) -> Iterator[None]:
        """Around one forward and backward pass."""
        self.model.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """The backward pass of one of them."""
        self.model.backward(loss)

    def update(self) -> Tensor:
        """Clip, step, forget the gradients; returns their norm before clipping."""
        self.model.step()
        return torch.as_tensor(self.model.get_global_grad_norm())

    def lasting(self) -> Iterator[Tensor]:
        """What is live between steps beside weights, buffers and the optimizer's own state."""
        yield from self.master

    @property
    def master(self) -> list[Tensor]:
        """The fp32 copies of this process's parts of the weights."""
        return self.model.optimizer.single_partition_of_fp32_groups

    def trained(self) -> dict[str, Tensor]:
        """The trained weights, by name. To be called in all processes; what it returns holds in the first."""
        return trained_of(self.model.module)

    def shared_state(self) -> dict[str, Any]:
        """What is the same in every process: nothing."""
        return {}

    def own_state(self) -> dict[str, Any]:
        """This process's part of the optimizer, with its fp32 copies of the weights."""
        states = self.model.optimizer.optimizer.state
        return {"master": list(self.master), "moments": [states[part] for part in self.master]}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a state of ``trained`` and :meth:`own_state` was taken."""
        self._put(state["trained"])
        for part, kept, moments in zip(self.master, state["master"], state["moments"], strict=True):
            part.copy_(kept)
            self.model.optimizer.optimizer.state[part] = {name: value.to(part.device) for name, value in moments.items()}

    def _put(self, trained: dict[str, Tensor]) -> None:
        put(trained_of(self.model.module), trained)
