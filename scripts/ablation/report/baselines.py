"""In words: what the study's baseline is, where it is several cells, and what is compared with nothing."""

import numpy as np

from ablation.report.comparisons import ended
from ablation.report.results import Results
from ablation.report.samples import METRIC, by_seed

NAMED = 4  # cells at most that a sentence names


def described(results: Results) -> str:
    """What the study says of its baseline: ``A, rank 16``. Of one cell, its label."""
    if len(results.baselines) == 1:
        return results.cells[results.baselines[0]].label
    wanted = (results.study.baseline or {}).items()
    return ", ".join(f"{value}" if axis == "strategy" else f"{_short(axis)} {value}" for axis, value in wanted)


def counterpart(results: Results) -> str:
    """Which of several baselines a cell is compared with: ``of the same batch and precision``; nothing where there is one."""
    axes = [_short(axis) for axis in results.compared.open]
    return f"of the same {' and '.join(filter(None, (', '.join(axes[:-1]), axes[-1])))}" if axes else ""


def missing(results: Results) -> list[str]:
    """Sentences on a baseline that is no cell, that has no value to compare with, or that lacks for some of the cells."""
    if not results.study.baseline:
        return []
    if not results.baselines:
        return [f"The study's baseline ({described(results)}) is none of its cells, so that nothing is compared with it."]
    return [sentence for sentence in (_without_value(results), _alone(results)) if sentence]


def _without_value(results: Results) -> str:
    known = ~np.isnan(by_seed(results, METRIC + results.primary.name).values).all(axis=1)
    lacking = [results.cells[i] for i in results.baselines if not known[i]]
    if not lacking or not known.any() or len(results.cells) == 1:
        return ""
    some = "; ".join(f"{cell.label} ({ended(cell)})" for cell in lacking[:NAMED])
    more = f"; and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    whose = "The baseline" if len(results.baselines) == 1 else f"Of {len(results.baselines)} baselines {len(lacking)}"
    return f"{whose} reached no {results.primary.label}, so that nothing is compared with it: {some}{more}."


def _alone(results: Results) -> str:
    alone = [cell for cell, of in zip(results.cells, results.compared.of, strict=True) if of is None]
    if not alone:
        return ""
    some = "; ".join(cell.label for cell in alone[:NAMED]) + (f"; and {len(alone) - NAMED} more" if len(alone) > NAMED else "")
    return f"No baseline is {counterpart(results)} as {some}: compared with nothing."


def _short(axis: str) -> str:
    return axis.rsplit(".", 1)[-1]
