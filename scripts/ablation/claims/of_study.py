"""The claims that a study names, held against what the study knows: before any job, without torch."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablation.claims.model import Claim, claims_path, load_claims
from ablation.claims.quantities import quantities_of
from ablation.errors import UserError
from ablation.explain import did_you_mean, in_file
from ablation.shipped import config_files
from ablation.study import AXES, Study

Problem = tuple[str, str]  # key, what is wrong with it


def claims_of(study: Study, folder: Path, cards: Path) -> dict[str, Claim]:
    """The study's claims from ``folder``; none where it names no file. ``cards``: the folder of the hardware files.

    Raises :class:`UserError` that names file, line and key.
    """
    if study.claims is None:
        return {}
    path = claims_path(study.claims, folder)
    claims, where = load_claims(path), in_file(path)
    known = list(config_files(cards))
    problems = [
        f"{where(('claims', name, key))}claims.{name}.{key}: {problem}"
        for name, claim in claims.items()
        for key, problem in _problems(claim, study, known)
    ]
    if problems:
        raise UserError("\n".join(problems))
    return claims


def _problems(claim: Claim, study: Study, cards: list[str]) -> Iterator[Problem]:
    if claim.card is not None and claim.card not in cards:
        yield "card", _unknown("card", claim.card, cards)
    if claim.outcome and claim.card is None:
        yield "outcome", "needs a card"
    settings = study.settings
    facts, quantities = settings.facts(), quantities_of(settings)
    if claim.quantity in facts:
        yield from _fact_problems(claim, facts[claim.quantity])
        return
    if claim.quantity is not None and claim.quantity not in quantities:
        yield "quantity", _unknown("quantity", claim.quantity, [*quantities, *facts])
    if claim.against == "pretrained" and f"pretrained.{claim.quantity}" not in quantities:
        yield "against", f"{claim.quantity} is not known of the pretrained model; metrics are"
    for key, cells in (("where", claim.where), ("against", claim.against)):
        if isinstance(cells, dict):
            yield from ((key, problem) for problem in _cell_problems(cells, study))


def _fact_problems(claim: Claim, fact: Any) -> Iterator[Problem]:
    try:
        inspect.signature(fact).bind(**claim.where)
    except TypeError as error:
        yield "where", f"{claim.quantity} is of {', '.join(inspect.signature(fact).parameters) or 'the system'} ({error})"


def _cell_problems(cells: dict[str, Any], study: Study) -> Iterator[str]:
    for axis, value in cells.items():
        if axis not in AXES and not _is_setting(study, axis):
            yield f"{_unknown('axis or setting', axis, AXES)}, and any dotted setting"
        elif axis == "strategy" and value not in study.strategies:
            yield _unknown("strategy", value, study.strategies)


def _is_setting(study: Study, axis: str) -> bool:
    value: Any = study.settings
    try:
        for step in axis.split("."):
            value = getattr(value, step)
    except AttributeError:
        return False
    return "." in axis


def _unknown(kind: str, name: Any, known: Any) -> str:
    return f"there is no {kind} {name!r}{did_you_mean(name, known)} (known: {', '.join(map(str, known))})"
