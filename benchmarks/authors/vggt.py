"""VGGT: the network, its losses and the normalisation before them. Recomputes the aggregator's blocks by itself."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from torch import Tensor, nn

from ablation.systems.vggt.geometry import unproject
from ablation.systems.vggt.settings import Architecture, SystemSettings
from authors import first_on_path

REPOSITORY = "facebookresearch/vggt"
FILES = ("vggt/models/vggt.py", "training/loss.py", "training/train_utils/normalization.py")

losses = normalization = vggt = None  # of theirs, once they are imported


def imports(folder: Path) -> None:
    """The package, and the modules of its folder ``training``, which import each other by their bare names."""
    global losses, normalization, vggt
    first_on_path(folder, folder / "training")
    import loss as losses
    import vggt.models.vggt
    from train_utils import normalization


def build(settings: SystemSettings) -> nn.Module:
    """Their class with parts of our sizes, without the heads that take no part in training."""
    a = settings.model.architecture
    with patch.object(vggt.models.vggt, "Aggregator", lambda **_: _aggregator(a)):  # which it would give the released sizes
        model = vggt.models.vggt.VGGT(enable_camera=False, enable_point=False, enable_depth=False, enable_track=False)
    model.aggregator = _aggregator(a)
    model.camera_head = vggt.heads.camera_head.CameraHead(
        2 * a.embed_dim, a.camera.depth, num_heads=a.camera.heads, mlp_ratio=a.camera.mlp_ratio
    )
    sizes = {"features": a.dpt.features, "out_channels": list(a.dpt.channels), "intermediate_layer_idx": list(a.dpt.layers)}
    model.depth_head = vggt.heads.dpt_head.DPTHead(2 * a.embed_dim, a.patch_size, output_dim=2, activation="exp", **sizes)
    return model


def _aggregator(a: Architecture) -> nn.Module:
    sizes = {"img_size": a.image_size, "patch_size": a.patch_size, "embed_dim": a.embed_dim}
    aggregator = vggt.models.aggregator.Aggregator(
        **sizes,
        depth=a.depth,
        num_heads=a.heads,
        mlp_ratio=a.mlp_ratio,
        num_register_tokens=a.registers,
        patch_embed="conv",
        qk_norm=a.qk_norm,
        rope_freq=a.rope_base,
    )
    layers = vggt.layers
    aggregator.patch_embed = layers.vision_transformer.DinoVisionTransformer(
        **sizes,
        depth=a.vit.depth,
        num_heads=a.vit.heads,
        mlp_ratio=a.vit.mlp_ratio,
        num_register_tokens=a.registers,
        block_fn=partial(layers.block.Block, attn_class=layers.attention.MemEffAttention),
        block_chunks=0,
        init_values=1.0,
        drop_path_uniform=True,  # none
        interpolate_antialias=True,
        interpolate_offset=0.0,
    )
    return aggregator


def read_back(settings: SystemSettings) -> int:
    """The largest position of a patch, which their rotary embedding reads."""
    return max(settings.data.resolution) // settings.model.architecture.patch_size


def blocks(model: nn.Module) -> Sequence[nn.Module]:
    """None: in training mode their aggregator does so whatever is asked for."""
    return ()


def loss(model: nn.Module, settings: SystemSettings, batch: dict[str, Tensor]) -> Tensor:
    """Their losses, each weighted as the settings say, of the batch that they normalise."""
    weights = settings.loss
    given = _normalised(batch)
    found = model(given["images"])
    camera = losses.compute_camera_loss(found, given)["loss_camera"]
    depth = losses.compute_depth_loss(found, given, gradient_loss_fn="grad", valid_range=weights.quantile or -1)
    parts = ("conf", "reg", "grad")
    return weights.camera * camera + sum(getattr(weights, part) * depth[f"loss_{part}_depth"] for part in parts)


def _normalised(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the frame of the first camera; world points are made here, of which their loader has a file."""
    points = unproject(batch["depths"], batch["intrinsics"], batch["extrinsics"])
    extrinsics, _, _, depths = normalization.normalize_camera_extrinsics_and_points_batch(
        batch["extrinsics"], points, points, batch["depths"], point_masks=batch["masks"]
    )
    return {**batch, "extrinsics": extrinsics, "depths": depths, "point_masks": batch["masks"]}
