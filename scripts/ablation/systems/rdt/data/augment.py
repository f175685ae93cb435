"""Random changes of one training image: colour, noise and blur."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ablation.systems.rdt.settings import Augment

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
TO_YIQ = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])  # NTSC 1953


def augmented(rng: np.random.Generator, augment: Augment, image: Tensor) -> Tensor:
    """``image`` [3, H, W] in [0, 1] changed in colour, by noise and blur, or by both."""
    what = rng.integers(3)
    if what != 0:
        image = coloured(rng, augment, image)
    if what != 1:
        image = corrupted(rng, augment, image)
    return image


def coloured(rng: np.random.Generator, augment: Augment, image: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue."""
    brightness, contrast, saturation = (_factor(rng, s) for s in (augment.brightness, augment.contrast, augment.saturation))
    image = image * brightness
    mean = _grey(image).mean()
    image = mean + contrast * (image - mean)
    grey = _grey(image)
    image = grey + saturation * (image - grey)
    return turned(image, rng.uniform(-augment.hue, augment.hue)).clamp(0, 1)


def corrupted(rng: np.random.Generator, augment: Augment, image: Tensor) -> Tensor:
    """Blur in half of the cases, then noise, in half of the cases the same in all channels."""
    if rng.random() < 0.5:
        image = blurred(image, rng.uniform(0, augment.blur))
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.standard_normal((channels, *image.shape[1:]), np.float32) * np.float32(rng.uniform(0, augment.noise))
    return (image + torch.from_numpy(noise)).clamp(0, 1)


def turned(image: Tensor, turns: float) -> Tensor:
    """The hue turned: a rotation of the two colour axes of YIQ, which leaves the luma as it is."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    rotation = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(TO_YIQ) @ rotation @ TO_YIQ, image)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of ``sigma`` pixels, cut off at three of them."""
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return image
    weights = torch.exp(-((torch.arange(-radius, radius + 1) / sigma) ** 2) / 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)[0]


def _factor(rng: np.random.Generator, strength: float) -> float:
    return rng.uniform(1 - strength, 1 + strength)


def _grey(image: Tensor) -> Tensor:
    return torch.einsum("c,chw->hw", torch.tensor(LUMA), image)[None]
