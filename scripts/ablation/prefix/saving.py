"""What a plan says of frozen parts: their share of the forward pass, and how many runs can have it computed once."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash
from ablation.files import write_json
from ablation.sweep import Run
from ablation.vram.flops import frozen_shares
from ablation.vram.traces import versions
from ablation.waiting import followed

DIGITS = 4


class Saving:
    """The columns of a plan for ``runs``. ``folder`` keeps what was counted, beside the traces of steps."""

    def __init__(self, runs: Sequence[Run], folder: Path | None):
        self._sharing, self._folder = Counter(run.prefix for run in runs), folder
        self._examples: dict[str, Run] = {}
        self._cuts: dict[str, set[int]] = defaultdict(set)
        for run in runs:
            if run.prefix is not None:
                self._examples.setdefault(run.settings.inputs_hash, run)
                self._cuts[run.settings.inputs_hash].add(run.prefix_cut)
        examples = followed(self._examples, "counting operations", len(self._examples), "network")
        self._shares = {inputs: self._counted(inputs) for inputs in examples}

    def __call__(self, run: Run) -> dict[str, Any]:
        """Nothing for a run that trains the network from its first layer on."""
        if run.prefix is None:
            return {}
        share = self._shares[run.settings.inputs_hash][run.prefix_cut]
        return {"frozen_forward": round(share, DIGITS), "prefix_runs": self._sharing[run.prefix]}

    def _counted(self, inputs: str) -> dict[int, float]:
        run, cuts = self._examples[inputs], sorted(self._cuts[inputs])
        name = short_hash([inputs, cuts, versions(run.settings.system)], 24)
        kept = None if self._folder is None else self._folder / f"{name}.json"
        try:
            found = json.loads(kept.read_text(encoding="utf-8")) if kept else None
        except (OSError, ValueError):
            found = None
        if found is None:
            found = {str(cut): share for cut, share in frozen_shares(run, cuts).items()}
            if kept:
                write_json(kept, found)
        return {int(cut): share for cut, share in found.items()}
