"""Collected runs out of nothing but numbers, for tests of what a report concludes from them."""

import json
from itertools import product

import numpy as np
import pandas as pd
from conftest import STUDY

from ablation.report.results import MEMORY, STEP_TIME, Results
from ablation.study import load_study

AXES = {"strategy": ["A", "B"], "rank": [4, 16]}


def made(quality, axes=None, seeds=3, memory=None, step=None, outcome=None, **overrides):
    """Results whose depth MAE is ``quality(cell, seed)``: a number, or one for each held-out item; so for the others.

    ``cell``: its axes. A cell of which ``outcome`` says other than completed has no numbers; what it says None of is not there.
    """
    study = load_study(STUDY, {"baseline": {"strategy": "A", "rank": 16}, **overrides})
    objectives = {name: study.settings.objective(one.train.patterns) for name, one in study.strategies.items()}
    rows = []
    for values in product(*(axes or AXES).values()):
        cell = dict(zip(axes or AXES, values, strict=True))
        for seed in range(seeds):
            ended = outcome(cell, seed) if outcome else "completed"
            if ended is None:
                continue
            row = {**cell, "seed": seed, "run": f"r{len(rows)}", "outcome": ended, "before.depth_mae": 1.2, "items": None}
            row["origin.objective"] = objectives.get(cell.get("strategy"), 1)
            if ended == "completed":
                found = np.atleast_1d(quality(cell, seed))
                row |= {"metric.depth_mae": found.mean(), MEMORY: memory(cell, seed) if memory else 1.0}
                row |= {STEP_TIME: step(cell, seed) if step else 0.1}
                if len(found) > 1:
                    row["items"] = json.dumps([{"item": f"i{i}", "depth_mae": value} for i, value in enumerate(found)])
            rows.append(row)
    return Results(study, pd.DataFrame(rows))
