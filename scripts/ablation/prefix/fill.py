"""Making the cache of one frozen part for the runs that share it: what is used most first, within a limit."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ablation.prefix.cache import Filling, Outputs, size_of
from ablation.prefix.uses import Use, held_out_uses, training_uses
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.systems.base import SharedSamples, SharingSystem
from ablation.training.accelerator import make_accelerator
from ablation.training.model import for_evaluation

log = logging.getLogger(__name__)


def fill(
    runs: Sequence[Run],
    untrained: Sequence[Run],
    weights: dict[str, Path],
    data: Sequence[Path],
    filling: Filling,
    device: torch.device,
) -> None:
    """Compute what ``runs``, of one prefix, will use more than once: the held-out inputs first, they are in every run.

    Training inputs are those of ``untrained``, the runs that are still to be trained.
    """
    run = runs[0]
    system, cuts = load_system(run.settings), sorted({one.prefix_cut for one in runs})
    accelerator = make_accelerator(run.axes["precision"], device)
    model = for_evaluation(system, run.axes["precision"], weights, None, device)
    with torch.no_grad(), accelerator.autocast():
        held_out, training = (system.samples(data, train=train) for train in (False, True))
        _fill(system, model, held_out, held_out_uses(runs, held_out), cuts, filling, "held-out")
        _fill(system, model, training, training_uses(untrained, training), cuts, filling, "training")


def _fill(
    system: SharingSystem,
    model: torch.nn.Module,
    samples: SharedSamples,
    uses: Sequence[Use],
    cuts: Sequence[int],
    filling: Filling,
    what: str,
) -> None:
    if not uses:
        return
    device, workers = next(model.parameters()).device, system.settings.compute.workers
    kept, chosen = 0, None
    for sample in DataLoader(samples, sampler=[use.draw for use in uses], batch_size=None, num_workers=workers):
        value = sample[system.prefix_input]
        states = system.prefix(model, value.to(device), chosen or cuts)
        if chosen is None:
            chosen = _that_fit(states, len(uses), filling.limit - filling.written)
            states = {cut: states[cut] for cut in chosen}
        if not filling.add(value, states):
            break
        kept += 1
    log.info("%d of %d %s inputs kept, at the cuts %s, %.3f GiB", kept, len(uses), what, chosen, filling.written / 2**30)


def _that_fit(states: Mapping[int, Outputs], count: int, room: int) -> list[int]:
    """The cuts of which ``count`` inputs fit. Deeper ones go first: their runs start from the deepest that is left."""
    cuts = sorted(states)
    while len(cuts) > 1 and count * size_of({k: v for cut in cuts for k, v in states[cut].items()}) > room:
        cuts.pop()
    return cuts
