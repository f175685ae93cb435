"""What CUDA does differently from a CPU, for a step that is traced on fake CPU tensors.

Autocast's list of operators that run in fp32, operators that are one kernel on CUDA and several on a CPU, which kernel
attention takes, and the memory that kernels take for themselves.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

aten = torch.ops.aten
KIB, MIB = 2**10, 2**20

# torch/include/ATen/autocast_mode.h: AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE.
FP32 = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh"),
    *("tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm"),
    *("rms_norm", "group_norm", "frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim", "cosine_similarity"),
    *("poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss"),
    *("smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss"),
    *("triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm"),
    *("logsumexp", "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_nearest2d", "_upsample_nearest_exact2d"),
    *("upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d"),
    *("_upsample_bilinear2d_aa", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
)
FP32_UNLESS_ASKED = (
    *("prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm"),
    *("linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList"),
)
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

FLASH_TYPES = (torch.float16, torch.bfloat16)
FLASH_HEAD = 256  # largest head dimension of the flash kernels
FLASH_ROWS = 128  # they work on blocks of this many queries
EFFICIENT_ROWS = 32  # the log-sum-exp of the memory-efficient kernels is padded to this


@contextmanager
def like_cuda() -> Iterator[None]:
    """Inside, operators on CPU tensors allocate what their CUDA kernels would."""
    library = torch.library.Library("aten", "IMPL")
    kernels = {
        "AutocastCPU": {name: _in_fp32(name) for name in FP32}
        | {name: _in_fp32(name, unless_asked=True) for name in FP32_UNLESS_ASKED},
        "AutogradCPU": {"dropout": _dropout, "rms_norm": _rms_norm, "scaled_dot_product_attention": _attention},
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for key, names in kernels.items():
                for name, kernel in names.items():
                    library.impl(name, kernel, key, allow_override=True)
        yield
    finally:
        library._destroy()


def _overload(name: str) -> Callable:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _in_fp32(name: str, unless_asked: bool = False) -> Callable:
    operator = _overload(name)

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            if unless_asked and kwargs.get("dtype") is not None:
                return operator(*args, **kwargs)
            return operator(*map(_wide, args), **{key: _wide(value) for key, value in kwargs.items()})

    return kernel


def _wide(value):
    if isinstance(value, Tensor) and value.dtype in FLASH_TYPES:
        return value.float()
    return value


def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """One kernel that saves a mask of one byte an element."""
    return aten.native_dropout.default(x, p, train)[0] if train and 0 < p < 1 and x.numel() else x


class _RmsNorm(torch.autograd.Function):
    """``_fused_rms_norm``: keeps its input and one number a row."""

    @staticmethod
    def forward(ctx, x, shape, weight):
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[: -len(shape)] + (1,) * len(shape), dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), None, None if weight is None else torch.empty_like(weight)


def _rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    return _RmsNorm.apply(x, shape, weight)


class _Flash(torch.autograd.Function):
    """``_scaled_dot_product_flash_attention``. The result lies as [B, S, H, D]."""

    @staticmethod
    def forward(ctx, q, k, v):
        batch, heads, queries, dim = q.shape
        out = q.new_empty(batch, queries, heads, dim).transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, q.new_empty(batch, heads, queries, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, k, v = ctx.saved_tensors[:3]
        batch, heads, queries, dim = q.shape
        rows = _up(queries, FLASH_ROWS)
        results = [torch.empty_like(x) for x in (q, k, v)]
        # In fp32, while the kernel runs: the gradient of q, summed over the blocks of keys, and a number a row.
        inner = [q.new_empty(batch, rows, heads, _up(dim, 32), dtype=torch.float32), q.new_empty(batch, heads, rows).float()]
        del inner
        return tuple(results)


class _Efficient(torch.autograd.Function):
    """``_scaled_dot_product_efficient_attention``: for fp32, and wherever there is a mask."""

    @staticmethod
    def forward(ctx, q, k, v, mask):
        batch, heads, queries, _ = q.shape
        out = q.new_empty(batch, queries, heads, v.shape[-1]).transpose(1, 2)
        rows = q.new_empty(batch, heads, _up(queries, EFFICIENT_ROWS), dtype=torch.float32)
        ctx.save_for_backward(q, k, v, mask, out, rows)
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, k, v = ctx.saved_tensors[:3]
        batch, heads, queries, dim = q.shape
        results = [x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2) for x in (q, k, v)]
        inner = [q.new_empty(batch, heads, queries, dtype=torch.float32)]
        if q.dtype in FLASH_TYPES:  # fp32 sums of gradients that are not
            inner += [q.new_empty(batch, heads, x.shape[2], _up(dim, 32), dtype=torch.float32) for x in (q, k, v)]
        del inner
        return *results, None


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False) -> Tensor:
    """The kernel that CUDA takes from compute capability 8.0 on: flash, memory-efficient, or plain mathematics."""
    same = q.dim() == 4 and q.shape[1] == k.shape[1] == v.shape[1]
    if q.dtype in FLASH_TYPES and attn_mask is None and q.shape[-1] <= FLASH_HEAD and q.shape[-1] == v.shape[-1] and same:
        padded = [_padded(x, 8) for x in (q, k, v)]
        out = _Flash.apply(*padded)
        return out[..., : v.shape[-1]] if out.shape[-1] != v.shape[-1] else out
    if same and (attn_mask is None or not attn_mask.requires_grad):
        return _Efficient.apply(q, k, v, attn_mask)
    return aten._scaled_dot_product_attention_math.default(
        q, k, v, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _padded(x: Tensor, step: int) -> Tensor:
    short = -x.shape[-1] % step
    return torch.nn.functional.pad(x, (0, short)) if short else x


def cublas_workspace(compute_capability: str, config: str | None) -> int:
    """Bytes that PyTorch gives each cuBLAS handle: ``CUBLAS_WORKSPACE_CONFIG``, or its default (CUDABlas handle pool)."""
    if config:
        sizes = [int(number) for number in config.strip(":").split(":")]
        return sum(size * count for size, count in zip(sizes[::2], sizes[1::2], strict=True)) * KIB
    return 32 * MIB if math.floor(float(compute_capability)) == 9 else (4096 * 2 + 16 * 8) * KIB
