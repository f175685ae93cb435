"""RDT with its adaptors: from language, image and state tokens to actions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ablation.systems.rdt.model.rdt import RDT
from ablation.systems.rdt.settings import Architecture


class Observation(NamedTuple):
    """What actions are predicted from; A entries a state or action, of which a robot has those where the mask is 1."""

    lang_tokens: Tensor
    """[B, L, lang_dim], L up to lang_length."""
    lang_mask: Tensor | None
    """[B, L], true where a token counts; None where all do."""
    img_tokens: Tensor
    """[B, I, img_dim]."""
    state: Tensor
    """[B, 1, A]."""
    action_mask: Tensor
    """[B, 1, A], 0 or 1, float."""
    frequencies: Tensor
    """[B], control frequency in Hz; 0 where unknown."""


def observation_of(batch: dict[str, Tensor]) -> Observation:
    """What the network is told in a batch of samples."""
    return Observation(
        batch["lang_tokens"], batch["lang_mask"], batch["img_tokens"], batch["state"], batch["mask"], batch["frequency"]
    )


class Conditions(NamedTuple):
    """An observation in the width of the network."""

    lang: Tensor
    """[B, L, C]."""
    lang_mask: Tensor | None
    img: Tensor
    """[B, I, C]."""
    state: Tensor
    """[B, 1, C]."""
    action_mask: Tensor
    frequencies: Tensor


class RDTRunner(nn.Module):
    """Parameter names and shapes equal the released ``robotics-diffusion-transformer/rdt-1b`` file."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.model = RDT(a)
        self.lang_adaptor = adaptor(a.adaptors.lang, a.lang_dim, a.hidden_size)
        self.img_adaptor = adaptor(a.adaptors.img, a.img_dim, a.hidden_size)
        self.state_adaptor = adaptor(a.adaptors.state, 2 * a.action_dim, a.hidden_size)  # the vector and its mask

    def forward(self, noisy: Tensor, steps: Tensor, observation: Observation) -> Tensor:
        """``noisy`` actions [B, H, A] at the diffusion ``steps`` [B] -> clean actions [B, H, A], in the compute type."""
        c = self.adapt(observation)
        x = torch.cat([c.state, self.embed(noisy, c.action_mask)], dim=1)
        return self.model(x, steps, c.frequencies, c.lang, c.lang_mask, c.img)

    def adapt(self, observation: Observation) -> Conditions:
        """Bring everything but the actions to the width of the network."""
        o = observation
        return Conditions(
            lang=self.lang_adaptor(o.lang_tokens.to(dtype_of(self.lang_adaptor))),
            lang_mask=o.lang_mask,
            img=self.img_adaptor(o.img_tokens.to(dtype_of(self.img_adaptor))),
            state=self.embed(o.state, o.action_mask),
            action_mask=o.action_mask,
            frequencies=o.frequencies,
        )

    def embed(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """States or actions [B, N, A] and their ``mask`` [B, 1, A] -> tokens [B, N, C]."""
        both = torch.cat([vectors, mask.to(vectors.dtype).expand_as(vectors)], dim=-1)
        return self.state_adaptor(both.to(dtype_of(self.state_adaptor)))


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of the weights of an adaptor's first layer."""
    return (module[0] if isinstance(module, nn.Sequential) else module).weight.dtype


def adaptor(layers: int, inside: int, outside: int) -> nn.Module:
    """``layers`` linear layers from width ``inside`` to ``outside`` with a GELU (by tanh) between them (models/rdt_runner.py).

    The release calls one layer ``linear``, two ``mlp2x_gelu``; the names of the weights follow.
    """
    if layers == 1:
        return nn.Linear(inside, outside)
    modules: list[nn.Module] = [nn.Linear(inside, outside)]
    for _ in range(1, layers):
        modules += [nn.GELU(approximate="tanh"), nn.Linear(outside, outside)]
    return nn.Sequential(*modules)
