"""Learning rates as pure functions of the step."""

import math

from ablation.settings import Training


def learning_rate(step: int, total: int, peak: float, training: Training) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``total``: linear warm-up, then constant or a cosine to ``min_lr``."""
    warmup = round(training.warmup * total)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if training.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, total - 1 - warmup)
    low = min(training.min_lr, peak)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2
