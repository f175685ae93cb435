"""Kolors with a layout adapter: the frozen UNet and language model, what is trained beside them, and their passes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.kolors.adapter import Layout, LayoutAdapter, Objects, cross_attentions
from ablation.systems.kolors.architecture import Architecture
from ablation.systems.kolors.diffusion import add_noise
from ablation.systems.kolors.heads import Heads
from ablation.systems.kolors.language import Prompt, empty_text, read_prompt, text_encoder, words
from ablation.systems.kolors.objectives import OBJECTIVES

SEED = 0  # of what no file holds: all runs begin at the network that is evaluated as the base


class Kolors(nn.Module):
    """All networks but the autoencoder, whose latents are data here.

    The forward pass is an objective, so that whatever wraps the network sees the whole step.
    """

    def __init__(self, architecture: Architecture, text_length: int):
        super().__init__()
        self.architecture, self.text_length = architecture, text_length
        self.unet = UNet2DConditionModel(**architecture.unet.config(architecture.text_encoder.dim))
        self.text_encoder = text_encoder(architecture.text_encoder)
        self.adapter, self.heads = self._fresh()
        self.adapter.join(cross_attentions(self.unet))

    def _fresh(self) -> tuple[LayoutAdapter, Heads]:
        sizes, text_dim = self.architecture, self.architecture.text_encoder.dim
        widths = {name: module.query_dim for name, module in cross_attentions(self.unet).items()}
        pooled = sizes.unet.channels[-1] + sum(sizes.unet.channels)
        return LayoutAdapter(sizes.adapter, widths, text_dim), Heads(sizes.heads, pooled, text_dim, self.text_length)

    def start(self) -> None:
        """Give adapter and heads the values that every training starts from, once the language model has its weights."""
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            torch.default_generator.manual_seed(SEED)
            adapter, heads = self._fresh()
        heads.images.like(self.text_encoder.embedding.word_embeddings.weight)
        self.adapter.load_state_dict(adapter.state_dict(), assign=True)
        self.heads.load_state_dict(heads.state_dict(), assign=True)

    def forward(self, batch: Mapping[str, Tensor], objective: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one of the :data:`OBJECTIVES` and its parts, for samples of the layout data set."""
        return OBJECTIVES[objective](self, batch)

    def prompt(self, tokens: Tensor, mask: Tensor) -> Prompt:
        """``tokens`` [B, L] where ``mask`` [B, L], read by the language model; without gradient."""
        return read_prompt(self.text_encoder, tokens, mask)

    def empty_prompt(self, batch: Mapping[str, Tensor]) -> Prompt:
        """The empty text for every sample of ``batch``."""
        states, pooled = self.prompt(*empty_text(batch["tokens"], batch["token_mask"]))
        count = len(batch["tokens"])
        return Prompt(states.expand(count, -1, -1), pooled.expand(count, -1))

    def layout(self, batch: Mapping[str, Tensor], labelled: bool = True) -> Layout:
        """The layout of a ``batch``; without its labels if not ``labelled``."""
        mask = batch["label_mask"] if labelled else torch.zeros_like(batch["label_mask"])
        weight = mask[..., None].float()
        mean = (words(self.text_encoder, batch["labels"]) * weight).sum(-2) / weight.sum(-2).clamp(min=1)
        height, width = batch["latents"].shape[-2:]
        blocks = self.architecture.unet.transformers
        levels = [(height >> level, width >> level) for level, count in enumerate(blocks) if count]
        return self.adapter(Objects(mean, mask.any(-1), batch["boxes"], batch["box_mask"]), levels)

    def denoise(self, noisy: Tensor, steps: Tensor, prompt: Prompt, layout: Layout | None, time_ids: Tensor) -> Tensor:
        """The noise in ``noisy`` [B, C, h, w] at ``steps`` [B]; without a layout, as the released UNet finds it."""
        return self.unet(
            noisy,
            steps,
            encoder_hidden_states=prompt.states,
            added_cond_kwargs={"text_embeds": prompt.pooled, "time_ids": time_ids},
            cross_attention_kwargs=None if layout is None else {"ip_hidden_states": layout},
        ).sample

    def features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the UNet sees in the latents of ``batch``, told neither caption nor labels: [B, features]."""
        steps = torch.full_like(batch["diffusion"], self.architecture.heads.feature_step)
        noisy = add_noise(batch["latents"], batch["feature_noise"], steps)
        with outputs_of([self.unet.mid_block, *self.unet.up_blocks]) as maps:
            self.denoise(noisy, steps, self.empty_prompt(batch), self.layout(batch, labelled=False), batch["time_ids"])
        pooled = [each.float().mean(dim=(2, 3)) for each in maps]
        return self.heads.features(torch.cat([F.layer_norm(each, each.shape[1:]) for each in pooled], dim=1))


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What ``modules`` return while the context lasts, in the order of their calls."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda module, given, output: found.append(output)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@cache
def count_parameters(architecture: Architecture, text_length: int) -> dict[str, int]:
    """The parameters of each network."""
    with torch.device("meta"):
        model = Kolors(architecture, text_length)
    return {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
