"""Our VGGT on the stored cases: the network, the losses, and the steps of training."""

from typing import Any

import torch
from torch import Tensor

from ablation.study import load_study
from ablation.systems.vggt import losses
from ablation.systems.vggt.geometry import normalise
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.pose import decode_pose, encode_pose
from ablation.systems.vggt.settings import Architecture, Dpt, Transformer
from ablation.systems.vggt.system import System
from parity_cases import Tensors, gradients
from parity_cases.steps import STUDIES, runs, steps

COTANGENT = "cotangent."


def vggt(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The whole network: patch tokens, aggregated tokens of every depth, cameras, depth, points."""
    model = _model(config, weights)
    out: Tensors = {}
    model.aggregator.patch_embed.register_forward_hook(lambda _module, _inputs, tokens: out.update(vit_patch_tokens=tokens))
    tokens = model.aggregator(inputs["images"], keep=range(config["aggregator"]["depth"]))
    out.update({f"aggregated_tokens.{depth}": value for depth, value in enumerate(tokens)})
    return {**out, **_predicted(model, inputs["images"])}


def vggt_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The gradient of every parameter, of the sum over outputs of <cotangent, output> / sqrt(numel)."""
    model = _model(config, weights)
    with torch.enable_grad():
        out = _predicted(model, inputs["images"])
        cotangents = {name.removeprefix(COTANGENT): value for name, value in inputs.items() if name.startswith(COTANGENT)}
        objective = sum((out[name] * value).sum() / value.numel() ** 0.5 for name, value in cotangents.items())
        objective.backward()
    return {"objective": objective[None], **gradients(model)}


def vggt_train_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The training loss and its parts, and its gradient for every parameter, as our trainer gets them."""
    settings = load_study(STUDIES / "vggt-eth3d.yaml", {"scale": "demo", **_settings(config)})
    model = _model(config, _with_points(config, weights)).train()
    with torch.enable_grad():
        found = System(settings).objective(model, inputs, "total")
        found.loss.backward()
    return {"loss": found.loss, **found.parts, **gradients(model)}


def vggt_steps(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The steps of every strategy: those of the study, and all that the authors' trainer trains where nothing is frozen."""
    strategies = {name: {"lr": lr} for name, lr in config["lr"].items()}
    strategies["full"]["train"] = {"full": ["aggregator", "camera_head", "depth_head"]}
    return {
        name: value
        for run in runs("vggt-eth3d", config, strategies=strategies, **_settings(config))
        for name, value in steps(run, System(run.settings), _with_points(config, weights), inputs).items()
    }


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Sizes and loss of a case, as a study says them; the authors weigh the three parts of the depth's loss together."""
    loss, depth = config["loss"], config["loss"]["depth"]
    return {
        "model": {"architecture": architecture(config).model_dump()},
        "loss": {"camera": loss["camera"], "conf": depth, "reg": depth, "grad": depth, "quantile": loss["valid_range"]},
    }


def _with_points(config: dict[str, Any], weights: Tensors) -> Tensors:
    """``weights`` with a point head, which takes no part in training."""
    points = VGGT(architecture(config)).point_head.state_dict()
    return weights | {f"point_head.{name}": value for name, value in points.items()}


def architecture(config: dict[str, Any]) -> Architecture:
    """The sizes of a case."""
    a, dpt = config["aggregator"], config["dpt"]
    return Architecture(
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


def _model(config: dict[str, Any], weights: Tensors) -> VGGT:
    model = VGGT(architecture(config))
    model.load_state_dict(weights)
    return model.eval()


def _predicted(model: VGGT, images: Tensor) -> Tensors:
    predicted = model(images)
    encodings = predicted.pop("pose_enc_list")
    return {**{f"pose_enc_list.{i}": value for i, value in enumerate(encodings)}, **predicted}


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
