"""Hunyuan3D-2.1: the shape transformer and the loss of its flow. The frozen networks before it are ours on both sides."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.settings import SystemSettings
from authors import bare_package

REPOSITORY = "Tencent-Hunyuan/Hunyuan3D-2.1"
FILES = ("hy3dshape/hy3dshape/models/denoisers/hunyuandit.py", "hy3dshape/hy3dshape/models/diffusion/transport/transport.py")
PACKAGES = ("", ".models", ".models.denoisers", ".models.diffusion")  # whose __init__ would import renderers

hunyuandit = transport = None  # of theirs, once they are imported


def imports(folder: Path) -> None:
    """The transformer and its flow, without the pipelines around them."""
    global hunyuandit, transport
    for name in PACKAGES:
        bare_package(f"hy3dshape{name}", folder.joinpath("hy3dshape", "hy3dshape", *name.split(".")))
    from hy3dshape.models.denoisers import hunyuandit
    from hy3dshape.models.diffusion import transport


def build(settings: SystemSettings) -> nn.Module:
    """Our generator with their transformer in it."""
    a = settings.model.architecture
    generator = ShapeGenerator(settings.model)
    with contextlib.redirect_stdout(io.StringIO()):
        generator.model = hunyuandit.HunYuanDiTPlain(
            input_size=a.latents,
            in_channels=a.channels,
            hidden_size=a.dim,
            context_dim=a.condition_dim,
            depth=a.depth,
            num_heads=a.heads,
            qk_norm=a.qk_norm,
            text_len=a.condition_tokens,
            use_attention_pooling=False,
            qkv_bias=a.qkv_bias,
            num_moe_layers=a.moe_layers,
            num_experts=a.experts,
            moe_top_k=a.experts_per_token,
        )
    return generator


def blocks(model: nn.Module) -> Sequence[nn.Module]:
    """Every block."""
    return model.model.blocks


def loss(model: nn.Module, settings: SystemSettings, batch: dict[str, Tensor]) -> Tensor:
    """Their transport's loss, with the noise and the time of the batch."""
    data = model.latents(batch["surface"], batch["chosen"], batch["posterior_noise"])
    condition = model.describe(batch["image"])
    flow = transport.create_transport()
    flow.sample = lambda x1: (batch["time"], batch["flow_noise"], x1)
    return flow.training_losses(model.model, data, {"contexts": {"main": condition}})["loss"].mean()
