"""What can go wrong with a loss, recognised and named, with a remedy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ablation.settings import Guards

MAX_SKIPPED = 20  # updates in a row that fp16 may lose while the scale settles
NOTHING_LEARNED = 20  # steps in a row without a gradient after which a run counts as untrained


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


def check_learning(losses: Sequence[float], norms: Sequence[float], epoch: int, total: int) -> Diagnosis | None:
    """Whether the latest steps learned nothing: no gradient over 20 steps, or neither loss nor gradient over an epoch.

    ``epoch``, ``total``: optimizer steps of an epoch and of the run, for runs that are shorter.
    """

    def absent(values: Sequence[float], steps: int) -> bool:
        return len(values) >= steps and not any(values[-steps:])

    many, few = min(NOTHING_LEARNED, total), min(NOTHING_LEARNED, epoch, total)
    if absent(norms, few) and absent(losses, few):
        detail = f"loss and gradient are exactly 0 over {few} steps"
        remedy = "No sample has anything to learn from: look at what the preparation of the data counted, and at data's limits."
        return Diagnosis("no valid target", len(norms), detail, remedy)
    if absent(norms, many):
        detail = f"the gradient of all that is trained is exactly 0 over {many} steps, the loss is not"
        return Diagnosis("no gradient", len(norms), detail, "Check that train names modules that take part in the loss.")
    return None


def unchanged(step: int) -> Diagnosis:
    """The trained weights are, to the bit, those that training began with."""
    return Diagnosis(
        "weights unchanged",
        step,
        "what was trained is bitwise what it was before the first step",
        "Check that lr is not too small for the type of the weights, and that train names modules that take part in the loss.",
    )


def check_scaler(norms: Sequence[float], step: int) -> Diagnosis | None:
    """With fp16, too many skipped updates in a row: the loss scale found no floor. ``norms``: of the latest gradients."""
    latest = norms[-MAX_SKIPPED:]
    if len(latest) < MAX_SKIPPED or any(map(math.isfinite, latest)):
        return None
    return Diagnosis("loss scale collapse", step, f"{MAX_SKIPPED} updates in a row overflowed fp16", "Use bf16 or fp32.")
