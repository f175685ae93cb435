"""What a start of a study will do, for a person: how many runs are finished, trained, or trained again and why."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from ablation.changes import Change
from ablation.standing import AGAIN, EVALUATE, FINISHED, NEW, RESUME, Standing
from ablation.sweep import Run

SHOWN = 3  # kinds of changes
IN_WORDS = {
    FINISHED: "finished",
    EVALUATE: "trained, to be evaluated",
    RESUME: "going on from a checkpoint",
    NEW: "to be trained",
    AGAIN: "to be trained again",
}


def outlook(
    name: str, runs: Mapping[str, Run], verdicts: Mapping[str, str], sent: Collection[str], stands: Callable[[Run], Standing]
) -> str:
    """A few lines on the study ``name``, whose runs are sent if their verdict is among ``sent``; ``stands``: where one does."""
    known = {run: verdicts[run] for run in runs if run in verdicts}
    kept = Counter(verdict for verdict in known.values() if verdict not in sent)
    found = [stands(runs[run]) for run, verdict in known.items() if verdict in sent]
    states = Counter(one.state for one in found)
    parts = [f"{states[state]} {words}" for state, words in IN_WORDS.items() if states[state]]
    parts += [f"{count} not sent ({verdict})" for verdict, count in kept.items()]
    lines = [f"{name}: {len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(parts)}{_steps(found)}"]
    return "\n".join([*lines, *_reasons(found)])


def _steps(found: Iterable[Standing]) -> str:
    """Optimizer steps that are to be taken, as far as settings say."""
    ahead = [one for one in found if one.state in (NEW, RESUME, AGAIN)]
    if not ahead:
        return "; no optimizer step is taken"
    steps = sum(one.run.settings.training.steps - one.steps for one in ahead if one.run.settings.training.steps)
    epochs = Counter(one.run.settings.training.epochs for one in ahead)
    parts = [f"{steps:,} optimizer steps"] if steps else []
    parts += [f"{count} x {number} epochs" for number, count in epochs.items() if number]
    return f"; {' and '.join(parts)}"


def _reasons(found: Iterable[Standing]) -> list[str]:
    """Why runs are trained again, the most frequent reason first, and how both results are kept."""
    reasons = [(", ".join(map(str, one.changes)), one.changes) for one in found if one.state == AGAIN]
    kinds, changes = Counter(said for said, _ in reasons), dict(reasons)
    lines = []
    for said, count in kinds.most_common(SHOWN):
        lines.append(f"  {count} trained again, and replaced: {said}")
        lines.append(f"    {_keep_both(changes[said])}")
    if len(kinds) > SHOWN:
        lines.append(f"  and for {len(kinds) - SHOWN} other reasons")
    return lines


def _keep_both(changes: Collection[Change]) -> str:
    swept = [change for change in changes if change.swept]
    if len(changes) == len(swept) == 1:
        return f"to keep both results: leave {swept[0].name} as it was and add {swept[0].swept}"
    return "to keep both results: give the changed study a name of its own (a copy of its file), and leave this one as it was"
