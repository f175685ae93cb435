"""Results of a training objective that was corrected since are shown as such, and count in no verdict."""

from typing import TYPE_CHECKING

from ablation.study import Study

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "origin.objective"
OTHER = "trained with another objective"
"""The outcome of a run that an earlier version trained, whose gradients were others."""
ENDED = ("completed", "untrained", "diverged")
"""Outcomes of runs that trained, of which all are measured and the first alone is evaluated."""
OF_THE_TRAINED = ("metric.", "curve.")  # columns; memory, time and the pretrained model's metrics stay true


def trained_before(runs: "pd.DataFrame") -> int:
    """How many of the runs that count were trained before objectives were recorded, if others were trained since.

    Until then the learning rate of a step was that of the next one.
    """
    ended = runs.loc[runs["outcome"].isin(ENDED), COLUMN] if COLUMN in runs else []
    return int(ended.isna().sum()) if len(ended) and ended.notna().any() else 0


def marked(study: Study, runs: "pd.DataFrame") -> "pd.DataFrame":
    """The table of collected runs, in which those of another objective have the outcome :data:`OTHER` and no metrics."""
    if not {"strategy", "outcome"} <= set(runs):
        return runs
    now = runs["strategy"].map({name: study.settings.objective(one.train.patterns) for name, one in study.strategies.items()})
    then = runs[COLUMN].fillna(1) if COLUMN in runs else 1
    other = runs["outcome"].isin(ENDED) & now.notna() & now.ne(then)
    if not other.any():
        return runs
    names = [name for name in runs if name.startswith(OF_THE_TRAINED) or name in ("items", "final_loss", "diagnosis")]
    cleared = {name: runs[name].astype(object).mask(other, None).infer_objects() for name in names}
    return runs.assign(**cleared, outcome=runs["outcome"].mask(other, OTHER))
