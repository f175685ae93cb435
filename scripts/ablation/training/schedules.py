"""What changes with the step, as pure functions of it: the learning rate, and the decay of the average."""

import math

from ablation.settings import Training


def learning_rate(step: int, total: int, peak: float, training: Training) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``total``: linear warm-up, then constant or a cosine to ``min_lr``.

    As the releases and diffusers count: the first step of a warm-up has the rate 0, the first after it the peak, and the cosine
    would be at ``min_lr`` in the step after the last.
    """
    warmup = round(training.warmup * total)
    if step < warmup:
        return peak * step / warmup
    if training.schedule == "constant":
        return peak
    progress = (step - warmup) / (total - warmup)
    low = min(training.min_lr, peak)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2


def average_decay(update: int, training: Training) -> float:
    """The decay of the average in its update number ``update`` (from 1): ``training.ema``, or less while that warms up.

    Source of the limits: LitEma of latent diffusion (Hunyuan3D-2.1 has it, too); models/ema_model.py of RDT, with its
    configuration's ``inv_gamma`` 1 and ``power`` 0.75, whose first two updates take the weights as they are.
    """
    match training.ema_warmup:
        case False:
            return training.ema
        case "power":
            return min(training.ema, 1 - max(update - 1, 1) ** -0.75)
        case _:
            return min(training.ema, (1 + update) / (10 + update))
