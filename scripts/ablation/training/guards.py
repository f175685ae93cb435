"""What can go wrong with a loss, recognised and named, with a remedy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ablation.settings import Guards

MAX_SKIPPED = 20  # updates in a row that fp16 may lose while the scale settles


@dataclass(frozen=True)
class Diagnosis:
    """A named problem, where it showed, and what helps."""

    name: str
    step: int
    detail: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} at step {self.step}: {self.detail}. {self.remedy}"


def check_finite(step: int, values: Mapping[str, float], scaled: bool) -> Diagnosis | None:
    """A loss or gradient that is NaN or Inf. With loss scaling (``scaled``) an overflowing gradient is ordinary."""
    bad = [name for name, value in values.items() if not math.isfinite(value) and not (scaled and name == "grad_norm")]
    if not bad:
        return None
    if bad == ["grad_norm"]:
        return Diagnosis(
            "non-finite gradient", step, "the loss is finite, its gradient is not", "Lower lr, or use bf16 or fp32."
        )
    return Diagnosis(
        "non-finite loss",
        step,
        f"{', '.join(bad)} is NaN or Inf",
        "Lower lr or set training.clip; check the data for NaN; fp16: use bf16.",
    )


def check_stuck(losses: Sequence[float], guards: Guards) -> Diagnosis | None:
    """Whether the loss of the first ``guards.stuck_after`` steps has not fallen."""
    window = max(1, len(losses) // 10)
    first, last = fmean(losses[:window]), fmean(losses[-window:])
    if first - last >= guards.stuck_drop * abs(first):
        return None
    return Diagnosis(
        "loss stuck",
        len(losses),
        f"its mean went from {first:.4g} to {last:.4g}, less than {guards.stuck_drop:.0%} down",
        "Check that the pretrained weights are the right ones, that train names the right modules, that lr is not too small.",
    )


def check_scaler(norms: Sequence[float], step: int) -> Diagnosis | None:
    """With fp16, too many skipped updates in a row: the loss scale found no floor. ``norms``: of the latest gradients."""
    latest = norms[-MAX_SKIPPED:]
    if len(latest) < MAX_SKIPPED or any(map(math.isfinite, latest)):
        return None
    return Diagnosis("loss scale collapse", step, f"{MAX_SKIPPED} updates in a row overflowed fp16", "Use bf16 or fp32.")
