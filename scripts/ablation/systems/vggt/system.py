"""The ``vggt`` system: what the trainer needs of VGGT on ETH3D-style scenes."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.prefix.cache import Cache, take_state
from ablation.systems.base import Draw, Evaluation, Objective
from ablation.systems.vggt.data.dataset import INPUT, SequenceDataset, detail_mask
from ablation.systems.vggt.geometry import normalise, unproject
from ablation.systems.vggt.losses import camera_loss, depth_loss
from ablation.systems.vggt.metrics import align, constant_depth, depth_metrics, mean_of, pose_auc, pose_errors
from ablation.systems.vggt.model.prefix import State
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.pictures import save_panel
from ablation.systems.vggt.pose import decode_pose
from ablation.systems.vggt.settings import SystemSettings
from ablation.systems.vggt.weights import DOWNLOAD as WEIGHTS_DOWNLOAD
from ablation.systems.vggt.weights import load_weights

HEADS = ("camera", "depth")  # the point head is loaded, so that names stay strict, but takes no part


class System:
    """VGGT with the settings of one run."""

    fp32_modules = ("camera_head", "depth_head", "point_head")
    objectives = ("total",)
    prefix_input = INPUT

    def __init__(self, settings: SystemSettings):
        self.settings = settings
        self.cache: Cache | None = None  # of what the frozen part of the network makes of images

    def build(self) -> nn.Module:
        """VGGT with fresh weights."""
        return VGGT(self.settings.model.architecture)

    def load_weights(self, model: nn.Module, files: dict[str, Path]) -> None:
        """Fill ``model`` from the released file."""
        load_weights(model, files["weights"])

    def recomputable(self, model: nn.Module) -> Sequence[nn.Module]:
        """The blocks of trunk and aggregator, and the depth head, some frames at a time; the camera head has few tokens."""
        aggregator = model.aggregator
        pairs = zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True)
        return [*aggregator.patch_embed.blocks, *chain(*pairs), model.depth_head]

    def samples(self, folders: Sequence[Path], train: bool) -> SequenceDataset:
        """Sequences of one split."""
        return SequenceDataset(folders, self.settings.data, self.settings.model.architecture.patch_size, train, self.cache)

    def fake_batch(self, batch: int) -> dict[str, Tensor]:
        """Random images, with a depth everywhere, at the largest size that is trained at."""
        data = self.settings.data
        height, width = max(data.sizes(self.settings.model.architecture.patch_size), key=prod)
        shape = (batch, data.frames, height, width)
        depths = 1 + torch.rand(shape)
        intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
        return {
            "images": torch.rand(batch, data.frames, 3, height, width),
            "depths": depths,
            "truth": depths.clone(),
            "regions": torch.zeros(shape, dtype=torch.uint8),
            "intrinsics": intrinsics.repeat(batch, data.frames, 1, 1),
            "extrinsics": torch.eye(4)[:3].repeat(batch, data.frames, 1, 1),
            "masks": depths > 0,
        }

    def objective(self, model: nn.Module, batch: dict[str, Tensor], name: str) -> Objective:
        """The weighted sum of camera and depth losses in the normalised frame of the first camera."""
        loss, masks = self.settings.loss, batch["masks"]
        extrinsics, depths = _truth(batch)
        size = tuple(batch["depths"].shape[-2:])
        out = model(batch.get("images"), heads=HEADS, state=take_state(batch), size=size)
        camera = camera_loss(out["pose_enc_list"], extrinsics, batch["intrinsics"], masks)
        weight = 1 + loss.window_weight * detail_mask(batch["regions"]).float() if loss.window_weight else None
        depth = depth_loss(out["depth"], out["depth_conf"], depths, masks, loss.quantile, weight)
        total = loss.camera * camera["camera"] + loss.conf * depth["conf"] + loss.reg * depth["reg"] + loss.grad * depth["grad"]
        return Objective(total, {part: value.detach() for part, value in {**camera, **depth}.items()})

    def prefix(self, model: nn.Module, images: Tensor, cuts: Sequence[int]) -> dict[int, State]:
        """The aggregator's states at ``cuts`` of one sequence [S, 3, H, W], bit by bit those of the forward pass."""
        state, states = model.aggregator.trunk(images[None]), {}
        for cut in sorted(cuts):
            state = states[cut] = model.aggregator.go_on(state, tuple(images.shape[-2:]), cut, model.kept(HEADS))
        return states

    def evaluate(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> Evaluation:
        """Depth and pose metrics on the held-out sequences, overall and by scene; panels of some views in ``out``."""
        samples, settings = self.samples(folders, train=False), self.settings.evaluation
        images, flat, items, errors = [], [], {}, []
        wanted = _spread(len(samples), settings.pictures)
        for index in range(len(samples)):
            sample = samples[Draw(seed=0, epoch=0, step=0, index=index)]
            scene, names = samples.names(index)
            predicted, extrinsics = self._predict(model, sample["images"], device)
            flat += depth_metrics(constant_depth(sample["truth"]), sample["truth"], sample["regions"])
            predicted = align(predicted, sample["truth"], settings.alignment)
            rows = depth_metrics(predicted, sample["truth"], sample["regions"])
            pair = pose_errors(extrinsics, sample["extrinsics"])
            images += rows
            errors.append(pair)
            of_scene = items.setdefault(scene, {"rows": [], "errors": []})
            of_scene["rows"] += rows
            of_scene["errors"].append(pair)
            if index in wanted:
                self._save(out, scene, names, sample, predicted)
        if not any(images):
            raise UserError("no held-out image has a depth within data.depth_range: there is nothing to judge depths by")
        return Evaluation(
            metrics={**mean_of(images), **_pose(errors)},
            items=[{"item": scene, **mean_of(found["rows"]), **_pose(found["errors"])} for scene, found in items.items()],
            notes={
                "alignment": f"{settings.alignment}, one scale a sequence",
                "images": str(len(images)),
                "split": f"by {self.settings.data.split.by}",
                "a constant depth for every sequence would have": _in_words(mean_of(flat), self.settings.data.unit),
            },
        )

    def preview(self, model: nn.Module, folders: Sequence[Path], out: Path, device: torch.device) -> dict[str, float]:
        """Depth of the first held-out sequence: its errors, and a panel of its middle image."""
        samples = self.samples(folders, train=False)
        sample, (scene, names) = samples[Draw(seed=0, epoch=0, step=0, index=0)], samples.names(0)
        predicted, _ = self._predict(model, sample["images"], device)
        predicted = align(predicted, sample["truth"], self.settings.evaluation.alignment)
        self._save(out, scene, names, sample, predicted)
        return mean_of(depth_metrics(predicted, sample["truth"], sample["regions"]))

    def _predict(self, model: nn.Module, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Depth [S, H, W] and extrinsics [S, 3, 4] of one sequence [S, 3, H, W], on the CPU."""
        known = self.cache([images]) if self.cache else None
        state = known and {name: value.to(device) for name, value in known[0].items()}
        given = None if state else images[None].to(device)
        out = model(given, heads=HEADS, state=state, size=tuple(images.shape[-2:]))
        extrinsics, _ = decode_pose(out["pose_enc"][0].float().cpu(), *images.shape[-2:])
        return out["depth"][0, ..., 0].float().cpu(), extrinsics

    def _save(self, out: Path, scene: str, names: Sequence[str], sample: dict[str, Tensor], predicted: Tensor) -> None:
        """A panel of the sequence's middle view: image, prediction, truth."""
        middle = len(names) // 2
        picture, truth = sample["images"][middle].permute(1, 2, 0).numpy(), sample["truth"][middle].numpy()
        path = out / f"{scene}-{Path(names[middle]).with_suffix('').as_posix().replace('/', '-')}.png"
        save_panel(path, picture, predicted[middle].numpy(), truth, self.settings.data.unit)

    def missing(self) -> list[str]:
        """Scenes and weights that are not there."""
        from ablation.systems.vggt.data.eth3d import DOWNLOAD, PUBLISHED, missing_scenes
        from ablation.systems.vggt.data.layout import LOOKED_FOR

        lines, data = [], self.settings.data
        if data.source == "eth3d" and (scenes := missing_scenes(Path(data.root), data.scenes)):
            where = (
                DOWNLOAD.format(root=data.root)
                if {*scenes} & {*PUBLISHED}
                else f"  looked for in each: {', '.join(LOOKED_FOR)}"
            )
            lines.append(f"data: {data.root} lacks the scenes {', '.join(scenes)}\n{where}")
        if not Path(self.settings.model.weights).is_file():
            lines.append(f"weights: {self.settings.model.weights} is not there\n{WEIGHTS_DOWNLOAD}")
        return lines


def _truth(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Extrinsics [B, S, 3, 4] and depths [B, S, H, W] as they are trained on; the points that it takes are forgotten."""
    points = unproject(batch["depths"], batch["intrinsics"], batch["extrinsics"])
    truth = normalise(batch["extrinsics"], batch["depths"], points, batch["masks"])
    return truth.extrinsics, truth.depths


def _in_words(found: Mapping[str, float], unit: str) -> str:
    return f"MAE {found['depth_mae']:.3f} {unit}, AbsRel {found['depth_absrel']:.3f}"


def _spread(count: int, wanted: int) -> set[int]:
    """``wanted`` indices spread evenly over ``range(count)``."""
    return {int(index) for index in np.linspace(0, count - 1, min(wanted, count)).round()}


def _pose(errors: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """AUC over the pairs of all sequences; none where every sequence is a single image."""
    rotation, translation = (torch.cat(part) for part in zip(*errors, strict=True))
    return pose_auc(rotation, translation) if len(rotation) else {}
