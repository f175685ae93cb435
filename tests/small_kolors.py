"""The smallest Kolors that has every part, and batches for it."""

import torch
from torch import Tensor, nn

from ablation.systems.kolors.architecture import Adapter, Architecture, Heads, Mapper, TextEncoder, UNet
from ablation.systems.kolors.data.settings import Data
from ablation.systems.kolors.network import Kolors
from ablation.systems.kolors.settings import Model, SystemSettings
from ablation.systems.kolors.system import System

SIZES = Architecture(
    unet=UNet(channels=(8, 16, 24), transformers=(0, 1, 2), heads=(1, 2, 3), layers=1, cross_dim=12, time_id_dim=8, groups=4),
    text_encoder=TextEncoder(layers=2, dim=16, ffn=24, heads=4, groups=2, head_dim=8, vocabulary=50, positions=64),
    adapter=Adapter(dim=12, bottleneck=8, heads=2, frequencies=4),
    heads=Heads(features=16, visual=2, images=3, retrieval=8, mapper=Mapper(dim=8, depth=1, heads=2, ffn=16)),
)
SAMPLE = Data(resolution=128, text_length=12, label_length=3, max_boxes=4)
PREFIX = (41, 43)  # as [gMASK] and sop would be


def settings(**changes) -> SystemSettings:
    """Settings of the small network."""
    content = {"system": "kolors", "training": {"steps": 2}, "model": Model(architecture=SIZES), "data": SAMPLE}
    return SystemSettings(**{**content, **changes})


def system(**changes) -> System:
    """The system of the small network."""
    return System(settings(**changes))


def network(seed: int = 0, trained: bool = False) -> Kolors:
    """A small Kolors with random weights; ``trained``: one whose adapter already says something."""
    torch.manual_seed(seed)
    model = system().build()
    model.start()
    if trained:
        for name, parameter in model.adapter.named_parameters():
            if name.endswith("out.weight"):
                nn.init.normal_(parameter, std=0.5)
    model.requires_grad_(False)
    for part in (model.adapter, model.heads):
        part.requires_grad_(True)
    return model


def batch(size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Samples with captions and layouts of different lengths."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    def whole(most: int, *shape: int) -> Tensor:
        return torch.randint(1, most, shape, generator=draw)

    length, side = SAMPLE.text_length, SAMPLE.resolution // SIZES.unet.factor
    corners = torch.rand(size, SAMPLE.max_boxes, 2, 2, generator=draw).sort(dim=2).values
    tokens, mask = whole(40, size, length), torch.zeros(size, length, dtype=torch.bool)
    for number in range(size):
        begin = number + 3
        mask[number, begin:] = True
        tokens[number, :begin] = 0
        tokens[number, begin : begin + 2] = torch.tensor(PREFIX)
    return {
        **{name: normal(size, SIZES.unet.latents, side, side) for name in ("latents", "noise", "feature_noise")},
        "diffusion": whole(1100, size),
        "tokens": tokens,
        "token_mask": mask,
        "boxes": corners.flatten(2),
        "box_mask": torch.arange(SAMPLE.max_boxes).expand(size, -1) < 3,
        "labels": whole(40, size, SAMPLE.max_boxes, SAMPLE.label_length),
        "label_mask": torch.arange(SAMPLE.label_length).expand(size, SAMPLE.max_boxes, -1) < 2,
        "time_ids": torch.full((size, 6), float(SAMPLE.resolution)),
    }
