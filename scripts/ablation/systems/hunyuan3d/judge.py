"""Judging the network on held-out pictures: the shapes it makes of them against the true ones."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ablation.systems.base import Draw, Evaluation
from ablation.systems.hunyuan3d import settings
from ablation.systems.hunyuan3d.data.cameras import read_cameras
from ablation.systems.hunyuan3d.data.dataset import ShapeDataset
from ablation.systems.hunyuan3d.data.render import View
from ablation.systems.hunyuan3d.data.shape import Shape
from ablation.systems.hunyuan3d.generate import Generated, generate, occupied
from ablation.systems.hunyuan3d.mesh import Mesh, Samples, is_watertight, sample_surface, save_glb
from ablation.systems.hunyuan3d.metrics import shape_metrics, volume_iou
from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.pictures import save_panel

SURFACE_SAMPLES = 10_000  # points of either surface that are compared
VALIDATION_DRAWS = 16  # whose mean loss a preview gives
PREVIEW_RESOLUTION = 128  # at most; a preview shall be quick

Row = dict[str, Any]


def evaluate(
    network: ShapeGenerator, samples: ShapeDataset, how: settings.Evaluation, out: Path, device: torch.device
) -> Evaluation:
    """Metrics over all shapes and of each, means over its pictures; meshes and pictures of the first few in ``out``."""
    rows = []
    for count, index in enumerate(chosen_views(samples, how.views)):
        shape, view = samples.views[index]
        sample = samples[Draw(seed=0, epoch=0, step=0, index=index)]
        made = generate(network, sample["image"].to(device), sample["flow_noise"].to(device), how)
        rows.append({"item": shape.name, "view": view.stem, **judged(network, made, shape, how.tau)})
        if count < how.pictures:
            save(made.mesh, shape, view, out)
    return Evaluation(mean_of(rows), _by_shape(rows), _notes(rows, how))


def save(mesh: Mesh | None, shape: Shape, view: Path, out: Path) -> None:
    """The sampled mesh, and pictures of it beside the true shape: from where it was seen, and from the other side."""
    name, cameras = f"{shape.name}-{view.stem}", read_cameras(shape.camera_file, shape.views)
    other = max(shape.views, key=lambda path: _apart(cameras[path.name], cameras[view.name]))
    if mesh is not None:
        save_glb(out / f"{name}.glb", mesh)
    save_panel(out / f"{name}.png", view, other, cameras, mesh)


def _apart(one: View, two: View) -> float:
    """How far around the shape two cameras are apart: 0 .. 2."""
    return 1 - math.cos(one.azimuth - two.azimuth)


def chosen_views(samples: ShapeDataset, views: int) -> list[int]:
    """Indices of ``views`` samples of each shape, spread evenly over them."""
    chosen = []
    for _, members in groupby(range(len(samples)), key=lambda index: samples.views[index][0].name):
        found = list(members)
        chosen += [found[round(i)] for i in np.linspace(0, len(found) - 1, min(views, len(found)))]
    return chosen


def judged(network: ShapeGenerator, made: Generated, shape: Shape, tau: float) -> Row:
    """Metrics of one made shape. An empty one has no distances; it counts as 0 where 0 is the worst."""
    row: Row = {"empty": float(made.mesh is None)}
    if made.logits is not None:
        row |= {"logit_min": made.logits[0], "logit_max": made.logits[1]}
    volume = shape.volume()
    if made.mesh is None:
        worst = {"fscore": 0.0, "normal_consistency": 0.0, "watertight": 0.0}
        return {**row, **({} if volume is None else {"volume_iou": 0.0}), **worst, "diagnosis": made.diagnosis}
    truth = _surface(shape)
    predicted = sample_surface(made.mesh, len(truth.points), seed=0)
    if volume is not None:
        row["volume_iou"] = volume_iou(occupied(network, made.tokens, volume.points), volume.values < 0)
    return {**row, **shape_metrics(predicted, truth, tau), "watertight": float(is_watertight(made.mesh))}


def _surface(shape: Shape) -> Samples:
    rows = shape.surface().random[:SURFACE_SAMPLES]
    lengths = np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)
    return Samples(rows[:, :3], rows[:, 3:] / np.maximum(lengths, np.finfo(np.float32).tiny))


def mean_of(rows: Sequence[Row]) -> dict[str, float]:
    """Mean of every number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, float))
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


def _by_shape(rows: Sequence[Row]) -> list[Row]:
    items = []
    for name, group in groupby(rows, key=lambda row: row["item"]):
        of_shape = list(group)
        found = [f"view {row['view']}: {row['diagnosis']}" for row in of_shape if "diagnosis" in row]
        items.append({"item": name, **mean_of(of_shape), **({"diagnosis": "\n".join(found)} if found else {})})
    return items


def _notes(rows: Sequence[Row], how: settings.Evaluation) -> dict[str, str]:
    empty = [row for row in rows if "diagnosis" in row]
    hollow = sorted({row["item"] for row in rows if "volume_iou" not in row})
    without = f"; none for {', '.join(hollow)}: the distances describe a shell" if hollow else ""
    return {
        "sampling": f"{how.steps} steps, guidance {how.guidance:g}, one fixed noise a picture",
        "pictures": f"{len(rows)} held out, of {len({row['item'] for row in rows})} shapes",
        "distances": f"shapes lie within [-1, 1]; F-score within {how.tau:g}; grid of {how.resolution} cells an axis",
        "volume": "IoU over the data's places, by the sign of the field; independent of the grid" + without,
        "empty meshes": f"{len(empty)} of {len(rows)}; they have no Chamfer distance and count as 0 elsewhere"
        + "".join(f"\n{row['item']}, view {row['view']}: {row['diagnosis']}" for row in empty[:1]),
    }


@torch.no_grad()
def preview(
    network: torch.nn.Module, samples: ShapeDataset, how: settings.Evaluation, out: Path, device: torch.device
) -> dict[str, float]:
    """Loss over fixed draws of held-out samples; one shape from its first held-out picture, as a mesh in ``out``."""
    losses = [float(network(_batch(sample, device))) for sample in _fixed(samples, VALIDATION_DRAWS)]
    sample, (shape, view) = samples[Draw(0, 0, 0, 0)], samples.views[0]
    resolution = min(how.resolution, PREVIEW_RESOLUTION)
    made = generate(network, sample["image"].to(device), sample["flow_noise"].to(device), how, resolution)
    if made.mesh is not None:
        save_glb(out / f"{shape.name}-{view.stem}.glb", made.mesh)
    range_ = {} if made.logits is None else {"logit_min": made.logits[0], "logit_max": made.logits[1]}
    return {"validation_loss": fmean(losses), "empty": float(made.mesh is None), **range_}


def _fixed(samples: ShapeDataset, count: int) -> Iterator[dict[str, Tensor]]:
    """``count`` samples, always the same, spread over the data; where it is small, with new noise each time round."""
    for number in range(count):
        index = number * len(samples) // count if len(samples) > count else number % len(samples)
        yield samples[Draw(seed=0, epoch=number // len(samples), step=0, index=index)]


def _batch(sample: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in default_collate([sample]).items()}
