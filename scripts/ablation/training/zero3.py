"""DeepSpeed's ZeRO stage 3: each process keeps a part of the weights too; a module's are gathered while it computes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ablation.training.zero import Zero


class Zero3(Zero):
    """How the passes of a step go over a model of which each process has a part.

    A parameter is an empty tensor between its uses; its part is ``ds_tensor``. Small ones stay whole (``Limits``).
    """

    together = True  # whoever computes with the model needs the others' parts

    def lasting(self) -> Iterator[Tensor]:
        """Parts of the weights and their fp32 copies, and DeepSpeed's buffers for gradients."""
        optimizer = self.model.optimizer
        yield from (parameter.ds_tensor for parameter in self.model.module.parameters())
        yield from self.master
        yield optimizer.grad_partitions_flat_buffer
        yield from (bucket.buffer for bucket in optimizer.ipg_buckets.values() if bucket.buffer is not None)

    @property
    def master(self) -> list[Tensor]:
        """The fp32 copies of this process's parts of the weights."""
        return self.model.optimizer.fp32_partitioned_groups_flat

    def trained(self) -> dict[str, Tensor]:
        """The trained weights on the host, one gathered after the other; in the processes after the first: nothing."""
        from deepspeed.runtime.zero import GatheredParameters

        self.model.empty_partition_cache()  # a preview leaves weights under way that it fetched ahead
        found: dict[str, Tensor] = {}
        for name, parameter in self._parameters():
            with GatheredParameters([parameter]):
                if self.model.global_rank == 0:
                    found[name] = parameter.detach().to("cpu", copy=True)
        return found

    @torch.no_grad()
    def _put(self, trained: dict[str, Tensor]) -> None:
        """Take this process's part of each weight; before the first step, when none is whole."""
        for name, parameter in self._parameters():
            whole, part = trained[name].flatten(), parameter.ds_tensor
            mine = whole[self.model.global_rank * part.numel() :][: part.numel()]
            part.narrow(0, 0, len(mine)).copy_(mine)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.module.named_parameters() if parameter.requires_grad]
