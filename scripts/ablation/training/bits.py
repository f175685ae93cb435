"""bitsandbytes' operators for weights and moments in few bits: a kernel each on CUDA, and on a CPU the same numbers.

They are called as operators, because so they can be followed on fake tensors. What bitsandbytes computes when it is imported
must be real, whoever imports it first.
"""

import logging
import sys

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

if sys.modules.get("bitsandbytes", ...) is None:  # as ablation/__init__.py has put it
    del sys.modules["bitsandbytes"]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel for inference that is not used here
with unset_fake_temporarily(), torch.device("cpu"):
    import bitsandbytes  # noqa: F401
    from bitsandbytes.functional import create_dynamic_map

    SIGNED, UNSIGNED = create_dynamic_map(signed=True), create_dynamic_map(signed=False)
    """What the 256 codes of a moment stand for, as shares of the largest of a block (Dettmers et al. 2022)."""
    EVEN = torch.cat([torch.linspace(-1, 1, 255), torch.ones(1)])
    """The same of a weight: even steps."""

operators = torch.ops.bitsandbytes
