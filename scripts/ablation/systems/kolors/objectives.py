"""The three objectives of a step: GILL's (Koh et al., NeurIPS 2023; github.com/kohjingyu/gill), for Kolors.

What is GILL's: visual tokens before a caption and the cross-entropy of its words; half the cross-entropy of caption and [IMG]
token with the contrast of captions and pictures; the same half with the distance of the mapped [IMG] tokens to the states that
the generator reads. A frozen language model, through which the gradient flows to the tokens.

What is not:

- A picture's features are CLIP's there; Kolors has no image encoder, so they are the UNet's own, of the latents with little
  noise, from the middle and every level on the way up (Luo et al., "Diffusion Hyperfeatures", and Tang et al., "DIFT", both
  NeurIPS 2023). Its prompt is the empty one and its boxes have no labels: else the caption could be read off.
- The generator's states are ChatGLM's, as many as the prompt has tokens, not CLIP's 77; and the adapter is trained to denoise
  with the true ones. Of the [IMG] tokens the first is foretold, the others follow it always (as the paper says).
- Captions are not joined in pairs; the [IMG] rows are not brought back to the table's norm.

Each objective makes its own passes, so that one's graph is gone before the next begins. ``InfoNCE`` is over the captions and
pictures of one process: several GPUs do not add negatives to each other's, and a batch of 1 has none, so it is 0.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ablation.systems.kolors.diffusion import add_noise, denoising_loss
from ablation.systems.kolors.language import beyond_prefix, next_word_loss, read, words

if TYPE_CHECKING:
    from ablation.systems.kolors.network import Kolors

Batch = dict[str, Tensor]
Found = tuple[Tensor, dict[str, Tensor]]  # the loss, and its parts for the record


def captioning(model: "Kolors", batch: Batch) -> Found:
    """The words of the caption after the picture, as a few visual tokens."""
    return caption_loss(model, batch, model.features(batch)), {}


def caption_loss(model: "Kolors", batch: Batch, features: Tensor) -> Tensor:
    """Cross-entropy of a caption's words for the ``features`` [B, F] of its picture.

    The visual tokens stand before the padding: positions and mask leave it out, so they are next to the text.
    """
    tokens, mask = batch["tokens"], batch["token_mask"]
    text = words(model.text_encoder, tokens)
    visual = model.heads.visual(features).to(text.dtype)
    before = visual.shape[1]
    states = read(model.text_encoder, torch.cat([visual, text], dim=1), F.pad(mask, (before, 0), value=True))
    return next_word_loss(model.text_encoder.output_layer(states[:, before:]), tokens, beyond_prefix(mask))


def retrieval(model: "Kolors", batch: Batch) -> Found:
    """A caption finds its picture among those of the batch, a picture its caption."""
    states = _states(model, batch, 1)
    captions, foretold = model.heads.retrieval.captions(states[:, -1]), _words_and_image(model, batch, states)
    pictures = model.heads.retrieval.pictures(model.features(batch))
    contrast = info_nce(model.heads.retrieval.similarity(captions, pictures))
    return 0.5 * foretold + contrast, {"retrieval_words": foretold, "info_nce": contrast}


def caption_vectors(model: "Kolors", batch: Batch) -> Tensor:
    """The captions [B, D] as they are compared with pictures."""
    return model.heads.retrieval.captions(_states(model, batch, 1)[:, -1])


def info_nce(similarity: Tensor) -> Tensor:
    """``similarity`` [B, B], each row's own on the diagonal: the mean cross-entropy of both ways."""
    own = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def generation(model: "Kolors", batch: Batch) -> Found:
    """[IMG] tokens become the states of the caption; the UNet denoises the latents with the true ones and the layout."""
    rows = model.heads.images.rows
    states = _states(model, batch, len(rows))
    foretold = _words_and_image(model, batch, states)
    prompt = model.prompt(batch["tokens"], batch["token_mask"])
    mapped = model.heads.mapper(states[:, -len(rows) :] + rows)
    distance = (mapped.float() - prompt.states.float()).norm(dim=-1).mean()
    noisy = add_noise(batch["latents"], batch["noise"], batch["diffusion"])
    predicted = model.denoise(noisy, batch["diffusion"], prompt, model.layout(batch), batch["time_ids"])
    noise = denoising_loss(predicted, batch["noise"])
    parts = {"generation_words": foretold, "states": distance, "noise": noise}
    return 0.5 * foretold + distance + noise, parts


def _states(model: "Kolors", batch: Batch, count: int) -> Tensor:
    """States [B, L + count, T] of the caption and the first ``count`` [IMG] tokens behind it."""
    text = words(model.text_encoder, batch["tokens"])
    images = model.heads.images.first(len(text), count, text.dtype)
    return read(model.text_encoder, torch.cat([text, images], dim=1), F.pad(batch["token_mask"], (0, count), value=True))


def _words_and_image(model: "Kolors", batch: Batch, states: Tensor) -> Tensor:
    """Cross-entropy of the caption's words and of [IMG0] after them, by their ``states``."""
    tokens, mask = batch["tokens"], batch["token_mask"]
    asked = states[:, : tokens.shape[1] + 1]
    logits = torch.cat([model.text_encoder.output_layer(asked), model.heads.images.foretold(asked)], dim=-1)
    first = model.text_encoder.config.padded_vocab_size
    wanted, counted = F.pad(tokens, (0, 1), value=first), F.pad(beyond_prefix(mask), (0, 1), value=True)
    return next_word_loss(logits, wanted, counted)


OBJECTIVES: dict[str, Callable[["Kolors", Batch], Found]] = {
    "captioning": captioning,
    "retrieval": retrieval,
    "generation": generation,
}
