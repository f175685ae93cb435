"""Claims and numbers as people read them."""

from collections.abc import Mapping
from typing import Any

from ablation.claims.model import Claim


def shown(value: float) -> str:
    """Three digits, or all of a count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def span(low: float, high: float, unit: str = "") -> str:
    """``12 GB``, or ``12 to 14 GB`` where the two are told apart."""
    text = " to ".join(dict.fromkeys(shown(value) for value in (low, high)))
    return f"{text} {unit}".strip()


def in_words(cells: Mapping[str, Any]) -> str:
    """``strategy B, rank 16``."""
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in cells.items()) or "any value"


def as_claimed(claim: Claim, unit: str) -> str:
    """What was published: ``20 GB``, ``at most 28 GB``, ``0.7 to 0.8 of strategy B``, ``oom on rtx4090``."""
    if claim.unchecked is not None:
        return ""
    if claim.outcome is not None:
        return f"{claim.outcome} on {claim.card}"
    if claim.against is None:
        return f"{_number(claim)} {unit}".strip()
    return f"{_number(claim)} of {'pretrained' if claim.against == 'pretrained' else in_words(claim.against)}"


def _number(claim: Claim) -> str:
    if (claimed := claim.claimed()) is not None:
        return shown(claimed)
    if None not in (claim.at_least, claim.at_most):
        return span(claim.at_least, claim.at_most)
    return f"at least {shown(claim.at_least)}" if claim.at_least is not None else f"at most {shown(claim.at_most)}"
