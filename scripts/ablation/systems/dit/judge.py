"""A small classifier of the training images: its features and its verdicts judge samples. Trained once, the same every time.

Inception, whose features FID takes, would have to be downloaded and knows photographs alone; this one knows what the study is
about. What it says of real images that it has not seen stands beside what it says of samples.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ablation.files import usual_mode, write_json
from ablation.systems.dit.data.images import centred, read_picture
from ablation.systems.dit.data.listing import Listed, split
from ablation.systems.dit.data.told import Told
from ablation.systems.dit.metrics import Moments, moments
from ablation.systems.dit.settings import Judge

WEIGHTS, TRAINED, KEPT, FACTS = "judge.safetensors", "trained.npz", "kept.npz", "judge.json"
BATCH, LR, SEED = 64, 2e-3, 0
SHIFT = 16  # part of an image's side that it is moved by at most while the judge learns


class Classifier(nn.Module):
    """Three convolutions, the mean over the image, a linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        pairs = pairwise(widths)
        self.layers = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2 if n else 1, padding=1) for n, (a, b) in enumerate(pairs)])
        self.norms = nn.ModuleList([nn.GroupNorm(min(8, b), b) for b in widths[1:]])
        self.head = nn.Linear(widths[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, s, s] in [-1, 1] -> [N, 4 * width]."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            images = F.silu(norm(layer(images)))
        return images.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, classes]."""
        return self.head(self.features(images))


class Verdict(NamedTuple):
    """What the judge makes of images."""

    features: NDArray[np.float32]
    """[N, D]."""
    labels: NDArray[np.int64]
    """The class that each is taken for [N]."""


class TrainedJudge:
    """A judge from the folder that :func:`train_judge` wrote."""

    def __init__(self, folder: Path, size: int, device: torch.device):
        state = load_file(folder / WEIGHTS)
        self.model = Classifier(len(state["layers.0.bias"]), len(state["head.bias"]))
        self.model.load_state_dict(state)
        self.model.to(device).eval()
        self.size, self.device = size, device
        self.trained = Moments(**np.load(folder / TRAINED))
        """Of the features of the images that were trained on."""
        kept = np.load(folder / KEPT)
        self.kept = Verdict(kept["features"], kept["labels"])
        """Of the real images that are kept for evaluation, in their order."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Verdict:
        """The verdict on ``images`` [N, 3, S, S], uint8."""
        with torch.autocast(self.device.type, enabled=False):
            features = torch.cat([
                self.model.features(_small(some, self.size).to(self.device)) for some in images.split(BATCH)
            ])  # fmt: skip
            labels = self.model.head(features).argmax(dim=1)
        return Verdict(features.cpu().numpy(), labels.cpu().numpy())


def train_judge(listed: Listed, test: float, size: int, judge: Judge, device: torch.device, out: Path) -> None:
    """Train on the training images; write the weights, the features' moments, the verdict on the kept ones, and facts."""
    trained, kept = split(listed.images, test)
    images, labels = _read(listed.root, trained, size, judge.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Classifier(judge.width, len(listed.classes)).to(device)
    _fit(model, images, labels, judge.epochs, device)
    save_file({name: value.cpu() for name, value in model.state_dict().items()}, out / WEIGHTS)
    usual_mode(out / WEIGHTS)
    np.savez(out / TRAINED, **moments(_verdict(model, images, device).features)._asdict())
    images, labels = _read(listed.root, kept, size, judge.size)
    verdict = _verdict(model, images, device)
    np.savez(out / KEPT, **verdict._asdict())
    accuracy = float((verdict.labels == labels.numpy()).mean())
    write_json(out / FACTS, {"classes": listed.classes, "trained": len(trained), "kept": len(kept), "accuracy": accuracy})


def _fit(model: Classifier, images: Tensor, labels: Tensor, epochs: int, device: torch.device) -> None:
    """Cross-entropy on images that are moved about a little; the same batches every time."""
    rng, total = np.random.default_rng(SEED), epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total)
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for _ in tqdm(range(epochs), desc="training the judge", disable=None):
            for chosen in torch.from_numpy(rng.permutation(len(images))).split(BATCH):
                moved = _moved(_unit(images[chosen]), rng).to(device)
                optimizer.zero_grad()
                F.cross_entropy(model(moved), labels[chosen].to(device)).backward()
                optimizer.step()
                schedule.step()


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    side = images.shape[-1]
    most = side // SHIFT
    left, top = rng.integers(0, 2 * most + 1, 2)
    return F.pad(images, (most,) * 4, mode="replicate")[..., top : top + side, left : left + side]


@torch.no_grad()
def _verdict(model: Classifier, images: Tensor, device: torch.device) -> Verdict:
    features = torch.cat([model.features(_unit(some).to(device)) for some in images.split(BATCH)])
    return Verdict(features.cpu().numpy(), model.head(features).argmax(dim=1).cpu().numpy())


def _read(root: Path, images: Sequence[Told], size: int, small: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, small, small], uint8, as the transformer knows them and then shrunk, and labels [N]."""
    read = [_shrunk(centred(read_picture(root / told.file), size)[None], small)[0] for told in images]
    return torch.stack(read), torch.tensor([told.label for told in images])


def _small(images: Tensor, side: int) -> Tensor:
    return _unit(_shrunk(images, side))


def _shrunk(images: Tensor, side: int) -> Tensor:
    """``images`` [N, 3, S, S] -> [N, 3, side, side], uint8."""
    if images.shape[-1] == side:
        return images
    small = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).to(torch.uint8)


def _unit(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
