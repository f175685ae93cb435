"""Live tensor memory on a CPU: every storage that exists, from its first appearance to its last reference."""

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablation.vram.trace import sums_gradients

MIB = 2**20


class LiveTensors(TorchDispatchMode):
    """While active, ``current`` and ``peak`` are the bytes of all live tensor storages it knows of.

    Raises :class:`torch.OutOfMemoryError`, in CUDA's words, at the tensor that would bring ``current`` above ``limit``.
    """

    def __init__(self, existing: Iterable[Tensor], limit: int | None = None):
        """``existing``: tensors that were there before: weights, optimizer state, the batch. ``limit``: in bytes."""
        super().__init__()
        self.limit = limit
        self.current = self.peak = 0
        self._known: set[int] = set()
        for tensor in existing:
            self._see(tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its wrapper would stand between this and autograd's engine

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = self.current

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.add.Tensor and sums_gradients(args):
            return torch.ops.aten.add_.Tensor(*args)
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        if self.limit is not None and self.current + size > self.limit:
            raise torch.OutOfMemoryError(
                f"CPU out of memory. Tried to allocate {size / MIB:.4f} MiB. The budget is {self.limit / MIB:.4f} MiB."
                f" Of the allocated memory {self.current / MIB:.4f} MiB is allocated by PyTorch."
            )
        self._known.add(key)
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.current -= size
