"""Tracing: what a step on fake tensors records, against what a real one allocates."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from allocations import growth
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ablation.vram import cuda
from ablation.vram.trace import KINDS, Tracer, in_order

BF16 = torch.bfloat16


def recorded(work, like_cuda=False) -> Tracer:
    """``work`` under a tracer, on fake tensors."""
    tracer = Tracer()
    with FakeTensorMode():
        if like_cuda:
            with cuda.like_cuda(), tracer:
                work()
        else:
            with tracer:
                work()
    return tracer


def sizes(tracer: Tracer) -> list[int]:
    return tracer.trace().sizes.tolist()


def most(tracer: Tracer) -> int:
    trace = tracer.trace()
    return int((np.sign(trace.events) * trace.sizes[np.abs(trace.events) - 1]).cumsum().max())


def branches(x):
    """A gradient that several branches add to."""
    return (x.sin() * x + x.cos() + x.sigmoid() * x.tanh()).sum()


def network(width=32):
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.LayerNorm(4 * width), nn.Linear(4 * width, width))


def train(checkpointing: bool):
    model, x = network(), torch.randn(64, 32)
    for _ in range(2):
        y = checkpoint(model, x, use_reentrant=False) if checkpointing else model(x)
        (y.square().mean() + y.abs().mean()).backward()


RANDOM_STATE = 5056  # bytes; a checkpoint keeps the state of the CPU's generator, on the host


@pytest.mark.parametrize(
    ("work", "on_host"),
    [
        (lambda: branches(torch.randn(1000, requires_grad=True)).backward(), 0),
        (lambda: train(checkpointing=False), 0),
        (lambda: train(checkpointing=True), RANDOM_STATE),
    ],
    ids=["branches", "layers", "checkpointed"],
)
def test_a_trace_has_the_peak_of_the_real_thing(work, on_host):
    assert most(recorded(work)) == growth(work) - on_host


def test_storages_end_where_their_last_reference_does():
    def work():
        a = torch.empty(100)
        view = a[:10]
        del a
        torch.empty(7)
        b = torch.empty(3)
        del view, b

    assert recorded(work).trace().events.tolist() == [1, 2, -2, 3, -1, -3]


def test_what_a_forward_pass_leaves_behind_are_activations():
    tracer = Tracer()
    with FakeTensorMode(), tracer:
        w = torch.ones(10, requires_grad=True)
        tracer.add([w], "trained_weights")
        tracer.mark("forward")
        y = (w * 2).exp()  # exp keeps its result, the product is gone
        loss = y.sum()
        tracer.mark("backward")
        loss.backward()
        tracer.mark("optimizer")
        tracer.label([w.grad], "gradients")
    trace = tracer.trace()
    kinds = [KINDS[kind] for kind in trace.kinds]
    assert kinds[0] == "trained_weights" and kinds[1:3] == ["temporaries", "activations"] and kinds.count("gradients") == 1


def test_frees_in_a_row_have_one_order():
    assert in_order(np.array([1, 2, 3, -3, -1, 4, -4, -2], np.int32)).tolist() == [1, 2, 3, -1, -3, 4, -2, -4]


def test_reading_a_value_back_cannot_be_traced():
    with pytest.raises(Exception, match="local_scalar_dense"):
        recorded(lambda: torch.randn(3).sum().item())


def test_autocast_widens_what_cuda_widens():
    """The lists are those of the installed torch's header."""
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()

    def names(macro: str) -> set[str]:
        body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", header, re.S)[1]
        return {".".join(part.strip() for part in found.split(",")) for found in re.findall(r"_\(([^()]*)\)", body)}

    assert names("AT_FORALL_FP32") == set(cuda.FP32)
    assert names("AT_FORALL_FP32_SET_OPT_DTYPE") == set(cuda.FP32_UNLESS_ASKED)


def test_autocast_is_cudas_inside_and_the_cpus_outside():
    x = torch.randn(4, 8, dtype=BF16)

    def kinds():
        with torch.autocast("cpu", dtype=BF16):
            return F.layer_norm(x, (8,)).dtype, x.softmax(-1).dtype, F.linear(x, x).dtype

    with cuda.like_cuda():
        assert kinds() == (torch.float32, torch.float32, BF16)
    assert kinds() == (BF16, BF16, BF16)


def test_dropout_keeps_one_byte_an_element():
    x = torch.Size([1000])
    on_cuda = recorded(lambda: F.dropout(torch.ones(x, requires_grad=True), 0.1), like_cuda=True)
    assert sorted(sizes(on_cuda)) == [1000, 4000, 4000]  # mask, input, output


def attention(dtype, mask=None, tokens=200):
    q, k, v = (torch.randn(2, 4, tokens, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask() if mask else None)
    assert out.transpose(1, 2).is_contiguous()  # [B, S, H, D] in memory: joining the heads copies nothing
    out.sum().backward()


def test_flash_attention_sums_its_query_gradient_in_fp32():
    found = sizes(recorded(lambda: attention(BF16), like_cuda=True))
    rows = 256  # 200 queries in blocks of 128
    assert 2 * rows * 4 * 64 * 4 in found  # the sum
    assert 2 * 4 * 200 * 4 in found  # log-sum-exp
    assert max(found) == 2 * rows * 4 * 64 * 4, "nothing quadratic in the tokens"


def test_attention_in_fp32_is_the_memory_efficient_kernel():
    found = sizes(recorded(lambda: attention(torch.float32), like_cuda=True))
    assert 2 * 4 * 224 * 4 in found and max(found) == 2 * 4 * 200 * 64 * 4  # log-sum-exp in rows of 32


@pytest.mark.parametrize(
    ("capability", "config", "size"),
    [("8.9", None, 8_519_680), ("9.0", None, 32 * 2**20), ("12.0", None, 8_519_680), ("8.9", ":4096:8", 32 * 2**20)],
)
def test_cublas_workspace(capability, config, size):
    assert cuda.cublas_workspace(capability, config) == size


def test_each_thread_that_multiplies_has_a_workspace():
    tracer = Tracer(workspace=5000)
    with FakeTensorMode(), tracer:
        x = torch.randn(4, 4, requires_grad=True)
        tracer.mark("forward")
        loss = (x @ x @ x).sum()
        tracer.mark("backward")
        loss.backward()
    assert sizes(tracer).count(5000) == 2
