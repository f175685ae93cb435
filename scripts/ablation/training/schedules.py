"""Learning rates as pure functions of the step."""

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
