"""Compare our networks with stored outputs of the reference implementations.

    python tests/parity.py SYSTEM CASE [--tolerance 1e-4]

CASE is the path of a case without its extension: ``CASE.config.json`` says how to build the model, ``CASE.safetensors``
holds ``weights/``, ``inputs/`` and ``outputs/``. Prints the largest absolute difference of every output; the exit status is
not zero when one exceeds the tolerance or is missing.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import torch
from parity_hunyuan3d import hunyuan3d_dit
from safetensors.torch import load_file
from torch import Tensor

from ablation.systems.vggt import losses
from ablation.systems.vggt.geometry import normalise
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.pose import decode_pose, encode_pose
from ablation.systems.vggt.settings import Architecture, Dpt, Transformer

Tensors = dict[str, Tensor]


def vggt(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The whole network: patch tokens, aggregated tokens of every depth, cameras, depth, points."""
    a, dpt = config["aggregator"], config["dpt"]
    model = VGGT(
        Architecture(
            image_size=a["img_size"],
            patch_size=a["patch_size"],
            embed_dim=a["embed_dim"],
            depth=a["depth"],
            heads=a["num_heads"],
            mlp_ratio=a["mlp_ratio"],
            registers=a["num_register_tokens"],
            qk_norm=a["qk_norm"],
            rope_base=a["rope_freq"],
            layer_scale=a["init_values"],
            vit=_transformer(config["patch_embed_vit"], "depth"),
            camera=_transformer(config["camera_head"], "trunk_depth"),
            dpt=Dpt(features=dpt["features"], channels=dpt["out_channels"], layers=dpt["intermediate_layer_idx"]),
        )
    )
    model.load_state_dict(weights)
    model.eval()
    out: Tensors = {}
    model.aggregator.patch_embed.register_forward_hook(lambda _module, _inputs, tokens: out.update(vit_patch_tokens=tokens))
    images = inputs["images"]
    tokens = model.aggregator(images, keep=range(a["depth"]))
    out.update({f"aggregated_tokens.{depth}": value for depth, value in tokens.items()})
    predicted = model(images)
    out.update({f"pose_enc_list.{i}": value for i, value in enumerate(predicted.pop("pose_enc_list"))})
    return {**out, **predicted}


def _transformer(config: dict[str, Any], depth: str) -> Transformer:
    return Transformer(depth=config[depth], heads=config["num_heads"], mlp_ratio=config["mlp_ratio"])


def vggt_loss(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """Normalisation, pose encoding and decoding, and every loss term, with and without the quantile filter."""
    _same_constants(config)
    height, width = inputs["depths"].shape[-2:]
    masks, intrinsics = inputs["point_masks"], inputs["intrinsics"]
    truth = normalise(inputs["extrinsics"], inputs["depths"], inputs["world_points"], masks)
    encodings = [
        inputs[f"pred_pose_enc_list.{i}"] for i in range(sum(name.startswith("pred_pose_enc_list.") for name in inputs))
    ]
    extrinsics, decoded = decode_pose(encodings[-1], height, width)
    out = {
        "norm_extrinsics": truth.extrinsics,
        "norm_depths": truth.depths,
        "norm_world_points": truth.world_points,
        "gt_pose_enc": encode_pose(truth.extrinsics, intrinsics, height, width),
        "decoded_extrinsics": extrinsics,
        "decoded_intrinsics": decoded,
    }
    camera = losses.camera_loss(encodings, truth.extrinsics, intrinsics, masks)
    for valid_range in ("-1", "0.98"):
        quantile = float(valid_range) if float(valid_range) > 0 else None
        depth = losses.depth_loss(inputs["pred_depth"], inputs["pred_depth_conf"], truth.depths, masks, quantile)
        points = losses.point_loss(
            inputs["pred_world_points"], inputs["pred_world_points_conf"], truth.world_points, masks, quantile
        )
        objective = config["camera"]["weight"] * camera["camera"]
        objective = (
            objective + config["depth"]["weight"] * sum(depth.values()) + config["point"]["weight"] * sum(points.values())
        )
        terms = {"camera": camera["camera"], "T": camera["T"], "R": camera["R"], "FL": camera["fov"]}
        terms.update(
            {f"{name}_depth": value for name, value in depth.items()}
            | {f"{name}_point": value for name, value in points.items()}
        )
        out.update({f"loss[valid_range={valid_range}].loss_{name}": value for name, value in terms.items()})
        out[f"loss[valid_range={valid_range}].objective"] = objective
    return out


def _same_constants(config: dict[str, Any]) -> None:
    """The constants of the release are constants of ours; a case with others is not comparable."""
    ours = {
        "camera.gamma": losses.STAGE_DECAY,
        "camera.weight_focal": losses.FOV_WEIGHT,
        "depth.alpha": losses.CONFIDENCE_ALPHA,
    }
    for key, value in ours.items():
        section, name = key.split(".")
        if config[section][name] != value:
            raise SystemExit(f"the case has {key} = {config[section][name]}, the release {value}")


SYSTEMS: dict[str, Callable[[dict[str, Any], Tensors, Tensors], Tensors]] = {
    "vggt": vggt,
    "vggt-loss": vggt_loss,
    "hunyuan3d_dit": hunyuan3d_dit,
}


def differences(system: str, case: Path) -> dict[str, float]:
    """Largest absolute difference of every stored output; infinite for one that we do not give or that has another shape."""
    config = json.loads(Path(f"{case}.config.json").read_text())
    stored: dict[str, Tensors] = {"weights": {}, "inputs": {}, "outputs": {}}
    for name, value in load_file(f"{case}.safetensors").items():
        kind, rest = re.fullmatch(r"(weights|inputs|outputs)/(.+)", name).groups()
        stored[kind][rest] = value
    with torch.no_grad():
        ours = SYSTEMS[system](config, stored["weights"], stored["inputs"])
    return {name: _difference(ours.get(name), value) for name, value in stored["outputs"].items()}


def _difference(ours: Tensor | None, reference: Tensor) -> float:
    if ours is None or ours.shape != reference.shape:
        return float("inf")
    difference = (ours.double() - reference.double()).abs()
    return float(torch.where(difference.isnan(), torch.inf, difference).max())


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("case", type=Path, help="path of the case without its extension")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    found = differences(args.system, args.case)
    for name, difference in found.items():
        sys.stdout.write(f"{name:<40} {difference:.3e}{'' if difference <= args.tolerance else '  EXCEEDS'}\n")
    worst = max(found.values())
    sys.stdout.write(f"{len(found)} outputs, largest difference {worst:.3e}, tolerance {args.tolerance:g}\n")
    sys.exit(worst > args.tolerance)


if __name__ == "__main__":
    main()
