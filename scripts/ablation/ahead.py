"""How many optimizer steps runs will take, before they are trained."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ablation.seal import FILE as SEAL
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.order import steps_per_epoch


def steps_of(run: Run, groups: Sequence[int]) -> int:
    """The steps of a run over samples of these groups (:meth:`ablation.systems.base.Samples.groups`)."""
    training = run.settings.training
    return training.steps or training.epochs * _per_epoch(tuple(groups), run.effective_batch)


def steps_ahead(runs: Iterable[Run], data: Path) -> dict[str, int]:
    """The steps by run; of runs that are given in epochs, where the folder ``data`` holds what they read."""
    samples: dict[str, Sequence[int] | None] = {}
    found = {}
    for run in runs:
        if run.settings.training.steps is not None:
            found[run.id] = run.settings.training.steps
            continue
        inputs = run.settings.inputs_hash
        if inputs not in samples:
            samples[inputs] = _groups(run, [data / part.id for part in run.settings.parts()])
        if (groups := samples[inputs]) is not None:
            found[run.id] = steps_of(run, groups)
    return found


def _groups(run: Run, folders: Sequence[Path]) -> Sequence[int] | None:
    if not all((folder / SEAL).is_file() for folder in folders):
        return None
    return load_system(run.settings).samples(folders, train=True).groups()


@cache
def _per_epoch(groups: tuple[int, ...], samples: int) -> int:
    return steps_per_epoch(groups, samples)
