"""What is asked of the frozen language model, ChatGLM3, as Kolors' pipeline and GILL do."""

from typing import NamedTuple

import torch
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel, RMSNorm
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.kolors import architecture

PREFIX = 2  # tokens that every text begins with: [gMASK] and sop
PAD = 0  # sentencepiece's number for what it does not know, which ChatGLM pads with


class Prompt(NamedTuple):
    """A text as the UNet takes it: ``states`` [B, L, T] of its tokens, ``pooled`` [B, T] of the last one."""

    states: Tensor
    pooled: Tensor


def text_encoder(settings: architecture.TextEncoder) -> ChatGLMModel:
    """ChatGLM3 with fresh weights."""
    model = ChatGLMModel(ChatGLMConfig(**settings.config()), empty_init=False)
    for module in model.modules():
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)  # which diffusers leaves to whoever loads weights
    return model


@torch.no_grad()
def read_prompt(model: ChatGLMModel, tokens: Tensor, mask: Tensor) -> Prompt:
    """``tokens`` [B, L] where ``mask`` [B, L], padded on the left: what the last layer takes, and gives of the last token."""
    *_, before, last = _read(model, words(model, tokens), mask).hidden_states
    return Prompt(before.transpose(0, 1), last[-1])


def words(model: ChatGLMModel, tokens: Tensor) -> Tensor:
    """What the model's table has for ``tokens`` [...] -> [..., T]."""
    return model.embedding.word_embeddings(tokens)


def read(model: ChatGLMModel, inputs: Tensor, mask: Tensor) -> Tensor:
    """States [B, S, T] from which the next words follow, for ``inputs`` [B, S, T] where ``mask`` [B, S]; with gradient."""
    return _read(model, inputs, mask).last_hidden_state.transpose(0, 1)


def _read(model: ChatGLMModel, inputs: Tensor, mask: Tensor):
    """Positions count what the mask leaves. The mask for every pair is made here: diffusers would wait for the device."""
    mask = mask.long()
    return model(
        mask,  # only its shape is asked for
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        full_attention_mask=model.get_masks(mask, None, mask),
        inputs_embeds=inputs.transpose(0, 1).contiguous(),
        use_cache=False,
        output_hidden_states=True,
        return_dict=True,
    )


def empty_text(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [1, L] and mask [1, L] of the empty text: the prefix that the first of ``tokens`` [B, L] begins with."""
    length = mask.shape[1]
    first = length - mask[:1].sum(1, keepdim=True)
    prefix = tokens[:1].gather(1, first + torch.arange(PREFIX, device=tokens.device))
    return F.pad(prefix, (length - PREFIX, 0), value=PAD), F.pad(torch.ones_like(prefix), (length - PREFIX, 0)).bool()


def beyond_prefix(mask: Tensor) -> Tensor:
    """The tokens of a text itself, by the ``mask`` [B, L] of all."""
    return mask & (mask.long().cumsum(1) > PREFIX)


def next_word_loss(logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of ``tokens`` [B, S], each from ``logits`` [B, S, V] at the place before it: the mean where ``counted``."""
    wanted = torch.where(counted, tokens, -100)[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted.flatten(), ignore_index=-100, reduction="sum")
    return losses / counted[:, 1:].sum().clamp(min=1)
