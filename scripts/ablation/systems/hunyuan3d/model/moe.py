"""The mixture of experts: every token goes to its k most likely experts, and to one expert that all tokens see.

No shape depends on where tokens are sent: a step on fake tensors is a step.
Two ways compute the same (see :meth:`MixtureOfExperts.forward`).
"""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ablation.systems.hunyuan3d.model.grouped import compute_type, group, groupable, grouped_linear

BALANCE = 0.01  # weight of the balancing term


class Routing(NamedTuple):
    """Where T tokens go, and the balancing term (in training; else None)."""

    weights: Tensor
    """[T, k] of the compute type: the probabilities of the chosen experts, as they are: they do not sum to one."""
    experts: Tensor
    """[T, k], int64."""
    balance: Tensor | None
    """Scalar: smallest when tokens are spread evenly."""


class Gate(nn.Module):
    """Softmax over experts."""

    def __init__(self, dim: int, experts: int, per_token: int):
        super().__init__()
        self.per_token = per_token
        self.weight = nn.Parameter(torch.empty(experts, dim))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Routing:
        """``x`` [T, C] -> where each token goes."""
        likely = F.linear(x.to(self.weight.dtype), self.weight).softmax(dim=-1, dtype=torch.float32)  # [T, E]
        weights, experts = likely.topk(self.per_token, dim=-1, sorted=False)
        return Routing(weights.to(x.dtype), experts, balance(likely, experts) if self.training else None)


def balance(likely: Tensor, experts: Tensor) -> Tensor:
    """Probabilities [T, E] and choices [T, k] -> 0.01 * sum over experts of mean probability * E * share of the choices."""
    count = likely.shape[1]
    shares = chosen(experts.flatten(), count).to(likely.dtype).mean(dim=0)
    return BALANCE * (likely.mean(dim=0) * count * shares).sum()


def chosen(experts: Tensor, count: int) -> Tensor:
    """``experts`` [...] -> bool [..., count], true at each one's number."""
    return experts[..., None] == torch.arange(count, device=experts.device)


class _OnlyGradient(torch.autograd.Function):
    """Passes ``x`` on; in the backward pass ``loss`` gets the gradient 1, as if it had been added to the objective.

    As in the release, whatever factor the objective itself carries (loss scale, gradient accumulation).
    """

    @staticmethod
    def forward(ctx, x: Tensor, loss: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.like = loss.dtype, loss.device
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        dtype, device = ctx.like
        return gradient, torch.ones((), dtype=dtype, device=device)


class Projection(nn.Module):
    """A linear layer and an exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., hidden]."""
        return F.gelu(self.proj(x))


class Expert(nn.Module):
    """An MLP, under the names of diffusers' feed-forward."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(Projection(dim, hidden), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C] -> [..., C]."""
        return self.net(x)


class MixtureOfExperts(nn.Module):
    """Routed experts, weighted by their probabilities, plus the shared one."""

    def __init__(self, dim: int, hidden: int, experts: int, per_token: int):
        super().__init__()
        self.experts = nn.ModuleList(Expert(dim, hidden) for _ in range(experts))
        self.gate = Gate(dim, experts, per_token)
        self.shared_experts = Expert(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, N, C] -> [B, N, C].

        Experts of plain linear layers run as two grouped products over the T * k rows that were sent to them. Layers in host
        memory, or that something else has taken the place of (adapters), run as modules: each expert over all tokens,
        weighted by zero where it was not chosen. Activations are then recomputed in the backward pass, one expert's at a time.
        """
        tokens = x.flatten(0, 1)
        routing = self.gate(tokens)
        y = self._grouped(tokens, routing) if self._groupable() else self._dense(tokens, routing)
        if routing.balance is not None:
            y = _OnlyGradient.apply(y, routing.balance)
        return y.unflatten(0, x.shape[:2]) + self.shared_experts(x)

    def _groupable(self) -> bool:
        return groupable(layer for expert in self.experts for layer in (expert.net[0].proj, expert.net[2]))

    def _grouped(self, x: Tensor, routing: Routing) -> Tensor:
        """``x`` [T, C] -> [T, C], each token through its k experts only."""
        per_token = routing.experts.shape[1]
        groups = group(routing.experts.flatten(), len(self.experts))
        x = x.to(compute_type(x.device.type, self.experts[0].net[2]))
        x = x.repeat_interleave(per_token, dim=0)
        x = torch.empty_like(x).index_copy_(0, groups.places, x)
        x = grouped_linear(x, groups, [e.net[0].proj for e in self.experts])
        out = grouped_linear(x, groups, [e.net[2] for e in self.experts], gelu=True)
        out = out.index_select(0, groups.places).unflatten(0, (-1, per_token))
        weighted = routing.weights[..., None].to(out.dtype) * out  # [T, k, C]
        return reduce(torch.add, weighted.unbind(dim=1))  # autocast would make ``sum`` one in fp32

    def _dense(self, x: Tensor, routing: Routing) -> Tensor:
        """``x`` [T, C] -> [T, C], every token through every expert."""
        count = len(self.experts)
        weights = (chosen(routing.experts, count) * routing.weights[..., None]).sum(dim=1)  # [T, E]
        recomputed = torch.is_grad_enabled()
        parts = (
            checkpoint(_weighted, expert, x, weight, use_reentrant=False) if recomputed else _weighted(expert, x, weight)
            for expert, weight in zip(self.experts, weights.unbind(dim=1), strict=True)
        )
        return reduce(torch.add, parts)


def _weighted(expert: Expert, x: Tensor, weight: Tensor) -> Tensor:
    y = expert(x)
    return weight[:, None].to(y.dtype) * y
