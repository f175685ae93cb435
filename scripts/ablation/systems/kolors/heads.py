"""What the three objectives train beside the adapter: GILL's ways between pictures and words (Koh et al., NeurIPS 2023)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.systems.kolors import architecture

TEMPERATURE = 0.07  # of the comparison of captions and pictures at the start, as CLIP's


class Heads(nn.Module):
    """All of them. ``pooled``: width of the UNet's pooled features; ``text_dim``: T of the language model."""

    def __init__(self, settings: architecture.Heads, pooled: int, text_dim: int, text_length: int):
        super().__init__()
        self.features = nn.Linear(pooled, settings.features)
        self.visual = VisualTokens(settings.visual, settings.features, text_dim)
        self.images = ImageTokens(settings.images, text_dim)
        self.retrieval = Retrieval(settings.retrieval, settings.features, text_dim)
        self.mapper = StateMapper(settings.mapper, settings.images, text_dim, text_length)


class VisualTokens(nn.Module):
    """A picture as words of the language model."""

    def __init__(self, count: int, features: int, text_dim: int):
        super().__init__()
        self.count = count
        self.linear = nn.Linear(features, count * text_dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, count, T]."""
        return self.linear(features).unflatten(-1, (self.count, -1))


class ImageTokens(nn.Module):
    """The words [IMG0], [IMG1] ... that the language model's table lacks: as read, and as foretold.

    GILL brings the rows back to the mean norm of the table's after every update; here they have it at the start.
    """

    def __init__(self, count: int, text_dim: int):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(count, text_dim) / math.sqrt(text_dim))
        self.foretold = nn.Linear(text_dim, count, bias=False)

    @torch.no_grad()
    def like(self, table: Tensor) -> None:
        """Give the rows the mean norm of those of ``table`` [V, T]."""
        wanted = torch.linalg.vector_norm(table, dim=1, dtype=torch.float32).mean()
        self.rows.mul_(wanted / torch.linalg.vector_norm(self.rows, dim=1, keepdim=True))

    def first(self, batch: int, count: int, dtype: torch.dtype) -> Tensor:
        """The first ``count`` of them for every sample: [B, count, T]."""
        return self.rows[:count].to(dtype).expand(batch, -1, -1)


class Retrieval(nn.Module):
    """Captions and pictures in one space."""

    def __init__(self, width: int, features: int, text_dim: int):
        super().__init__()
        self.caption = nn.Linear(text_dim, width)
        self.picture = nn.Linear(features, width)
        self.scale = nn.Parameter(torch.tensor([-math.log(TEMPERATURE)]))  # a list: DeepSpeed takes no parameter without axes

    def captions(self, states: Tensor) -> Tensor:
        """States [B, T] of [IMG0] -> [B, D] of length 1, fp32."""
        return F.normalize(self.caption(states).float(), dim=-1)

    def pictures(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, D] of length 1, fp32."""
        return F.normalize(self.picture(features).float(), dim=-1)

    def similarity(self, captions: Tensor, pictures: Tensor) -> Tensor:
        """[A, D], [B, D] -> [A, B], cosines over a learned temperature; in fp32 also where autocast would not."""
        with torch.autocast(captions.device.type, enabled=False):
            return self.scale.exp() * captions @ pictures.T


class StateMapper(nn.Module):
    """GILL's mapper: from the [IMG] tokens to the states of a caption, a transformer with a learned query for each of them."""

    def __init__(self, settings: architecture.Mapper, images: int, text_dim: int, text_length: int):
        super().__init__()
        width = {"d_model": settings.dim, "nhead": settings.heads, "dim_feedforward": settings.ffn}
        kind = {"dropout": 0.0, "norm_first": True, "batch_first": True}  # without dropout: nothing is random but the samples
        self.inward = nn.Linear(text_dim, settings.dim)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**width, **kind), settings.depth, nn.LayerNorm(settings.dim), enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**width, **kind), settings.depth, nn.LayerNorm(settings.dim)
        )
        self.queries = nn.Parameter(torch.randn(text_length, settings.dim))
        self.outward = nn.Linear(settings.dim, text_dim)

    def forward(self, states: Tensor) -> Tensor:
        """What the language model has of the [IMG] tokens, [B, images, T] -> [B, L, T]."""
        memory = self.encoder(self.inward(states))
        queries = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        return self.outward(self.decoder(queries, memory))
