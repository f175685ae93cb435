"""In words: which swept values made no difference by definition, and which decay of the average was in force."""

import pandas as pd

from ablation.alike import one_training
from ablation.report.results import Results

DECAY = "average_decay"  # of the last update, as collected


def without_difference(results: Results) -> list[str]:
    """A sentence for each set of values between which runs are one training."""
    return [f"{one}." for one in one_training(results.alike)]


def decays_in_force(results: Results) -> list[str]:
    """A sentence for each decay of the average that runs did not reach, on what they reached."""
    if DECAY not in results.runs:
        return []
    known = results.runs[results.runs[DECAY].notna()]
    asked = known["training.ema"] if "training.ema" in known else pd.Series(results.study.training.ema, known.index)
    rows = pd.DataFrame({"asked": asked, "last": known[DECAY], "steps": known["steps"]})
    rows = rows[rows["last"] < rows["asked"]].drop_duplicates().sort_values(["asked", "steps"])
    parts = [
        f"for ema {', '.join(f'{asked:g}' for asked in group['asked'])} it is {last:.4g} after {steps:,.0f} steps"
        for (last, steps), group in rows.groupby(["last", "steps"])
    ]
    return [f"The average's decay rises with its updates: {'; '.join(parts)}."] if parts else []
