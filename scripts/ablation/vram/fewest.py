"""``gradient_checkpointing: auto``: how many blocks must be recomputed for a run to fit its card."""

import json
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.files import write_json
from ablation.sweep import Run
from ablation.vram.sharding.rank import sharding_of
from ablation.vram.traces import Traces, family

if TYPE_CHECKING:
    from ablation.vram.predict import Prediction


class Fewest:
    """The fewest blocks with which a run is predicted to fit ``budget``, in GiB; all of them where even that is not enough.

    Every block more costs the time of its forward pass, and holds less: so the least number is the fastest. Kept beside the
    traces, from which any process finds the same.
    """

    def __init__(self, traces: Traces, predict: Callable[[Run], "Prediction"], budget: float):
        self.traces, self.predict, self.budget = traces, predict, budget
        self._known: dict[tuple, int] = {}

    def __call__(self, run: Run) -> int:
        key = family(run), run.axes["batch"], run.rank, repr(sharding_of(run))
        if key not in self._known:
            path = self.traces.path("fewest", *key, self.budget, run=run, suffix=".json")
            if path and path.is_file():
                self._known[key] = _kept(path)
            else:
                self._known[key] = self._search(run)
                if path:
                    write_json(path, {"recomputed": self._known[key]})
        return self._known[key]

    def _search(self, run: Run) -> int:
        few = self.predict(run.recomputing(False))
        if few.verdict == "fits":
            return 0
        from ablation.vram.step import count_recomputable

        too_few, enough = 0, count_recomputable(run)
        many = self._with(run, enough) if enough else few
        if many.verdict != "fits":
            return enough
        wanted, attempts = 1, 0  # the last block may hold as much as all others, of which each has its share
        while enough - too_few > 1:
            tried = min(max(wanted, too_few + 1), enough - 1)
            found = self._with(run, tried)
            if found.verdict == "fits":
                enough, many = tried, found
            else:
                too_few, few = tried, found
            attempts += 1  # a half now and then ends it where the shares are not equal
            share = (few.allocated - self.budget) / (few.allocated - many.allocated) if attempts % 3 else 0.5
            wanted = too_few + ceil(share * (enough - too_few))
        return enough

    def _with(self, run: Run, how: int) -> "Prediction":
        return self.predict(self.traces.alike(run, how))


def _kept(path: Path) -> int:
    return json.loads(path.read_text(encoding="utf-8"))["recomputed"]
