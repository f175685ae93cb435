"""The summary of a report, in sentences that hold for the numbers at hand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablation.objective import trained_before
from ablation.report.alike import without_difference
from ablation.report.baselines import counterpart, missing
from ablation.report.comparisons import (
    BETTER,
    EQUAL,
    NO_SPREAD,
    ONE_PAIR,
    ONE_SEED,
    UNTOLD,
    WORSE,
    Difference,
    differences,
    ended,
)
from ablation.report.numbers import change, difference, enough_digits, p_words
from ablation.report.results import MEMORY, OOM, PREDICTED_OOM, STEP_TIME, Results, in_words
from ablation.report.samples import METRIC, by_item, by_seed
from ablation.report.statistics import intervals, seeds_needed

FEW = 3  # seeds below which the intervals are too wide to rank cells
NAMED = 4  # cells at most that a sentence names


def summary(results: Results) -> list[str]:
    """What was compared, what won by how much and what it costs, what did not fit or failed, and what cannot be told."""
    means = _means(results, METRIC + results.primary.name)
    if np.isnan(means).all():
        return [_compared(results), "No run reached an evaluation, so there is nothing to compare.", *_without(results)]
    best = _best_of(results, means)
    found = differences(results, results.primary)
    sentences = [_compared(results), _gain(results, means), _best(results, means, best, found), _others(results, found)]
    sentences += [
        _two_versions(results),
        *missing(results),
        *without_difference(results),
        _costs(results, best, found),
        *_without(results),
        _seeds(results, means, best, found),
    ]
    return [sentence for sentence in sentences if sentence]


def _best_of(results: Results, means: np.ndarray) -> int:
    """The cell with the best mean; the baseline, where it is one of them."""
    best = int(np.nanargmin(means if results.primary.lower_is_better else -means))
    return next((i for i in results.baselines if means[i] == means[best]), best)


def _compared(results: Results) -> str:
    counts = results.runs["outcome"].value_counts().to_dict()
    told = ", ".join(f"{count} {in_words(outcome)}" for outcome, count in counts.items())
    told = "all completed" if set(counts) == {"completed"} and len(results.runs) > 1 else told
    fixed = ", ".join(f"{_short(axis)} {value}" for axis, value in results.fixed.items() if value is not None)
    seeds = results.runs["seed"].nunique()
    axes = _listed([_short(axis) for axis in results.varying])
    text = (
        f"{_many(len(results.runs), 'run')} in {_many(len(results.cells), 'cell')} over {axes}, {_many(seeds, 'seed')}: {told}."
    )
    return text + (f" Throughout: {fixed}." if fixed else "")


def _two_versions(results: Results) -> str:
    """Runs that were trained with other learning rates than the rest."""
    count = trained_before(results.runs)
    told = f"{count} of {len(results.runs)} runs were trained by an earlier version, whose learning rates were one step ahead"
    return f"{told} of the others'; means and differences mix the two." if count else ""


def _gain(results: Results, means: np.ndarray) -> str:
    """From the model before training to what the cells reached."""
    metric, before = results.primary, results.before(results.primary.name)
    if before is None:
        return ""
    known = means[~np.isnan(means)]
    better = int(np.count_nonzero(known < before if metric.lower_is_better else known > before))
    low, high = (f"{value:.{metric.digits}f}" for value in (known.min(), known.max()))
    reached = low if low == high else f"{low} to {high}"
    return (
        f"On held-out data the {metric.label} went from {before:.{metric.digits}f}{_unit(results)} before training to"
        f" {reached}{_unit(results)}; it improved in {better:,} of {_many(len(known), 'cell')}."
    )


def _best(results: Results, means: np.ndarray, best: int, found: Sequence[Difference]) -> str:
    """The best mean, and its difference to the baseline."""
    metric, cell, baseline = results.primary, results.cells[best], results.compared.of[best]
    the = "the" if len(results.baselines) == 1 else "its"
    reached = cell.estimate(METRIC + metric.name)
    width = "" if reached.half_width is None else f" ± {reached.half_width:.{metric.digits}f}"
    whose = f"{the.replace('its', 'a')} baseline ({cell.label})" if best == baseline else cell.label
    ties = int(np.count_nonzero(means == means[best])) - 1
    whose += f" and of {ties} more cell{'s' if ties > 1 else ''}" if ties else ""
    text = f"The best mean {metric.label} is that of {whose}: {reached.mean:.{metric.digits}f}{width}{_unit(results)}"
    if baseline is None or best == baseline:
        return f"{text}."
    base, one = results.cells[baseline], next(one for one in found if one.cell == best)
    if one.mean is None:
        why = f"which has none ({ended(base)})" if np.isnan(means[baseline]) else "with which it shares no seed"
        return f"{text}; it cannot be compared with {the} baseline ({base.label}), {why}."
    digits = enough_digits([one.mean, one.half_width], metric.digits)
    amount = f"{difference(one.mean, one.half_width, digits)}{_unit(results)}"
    if means[baseline] > 0 and abs(one.mean) > 0.001 * means[baseline]:
        amount += f", {change(one.mean + means[baseline], means[baseline])} of its value"
    return f"{text}. Its difference to {the} baseline ({base.label}) is {amount} ({_tested(one)}){_verdict(one)}."


def _tested(one: Difference) -> str:
    pairs = _many(one.pairs, "pair")
    return pairs if one.p is None else f"{pairs}, {p_words(one.p)} after Holm's correction"


def _verdict(one: Difference) -> str:
    if one.verdict.endswith(ONE_SEED):
        return ": told apart over the items, for the weights of one seed"
    return {
        ONE_PAIR: "; one pair gives no interval",
        EQUAL: ": they are equal in every pair",
        NO_SPREAD: ", the same in every pair, which gives no interval",
        UNTOLD: ": the two cannot be told apart",
    }.get(one.verdict, "")


def _others(results: Results, found: Sequence[Difference]) -> str:
    """How the cells stand to their baselines, where there are several to tell of."""
    baseline = " ".join(filter(None, ("the baseline", counterpart(results))))
    judged = [one for one in found if one.mean is not None and one.pairs > 1]
    if len(judged) < 2:
        return ""
    if all(one.verdict == UNTOLD for one in judged):
        return f"None of the {len(judged):,} cells compared with {baseline} can be told from it."
    parts = []
    for verdict, words in (
        (BETTER, "{} better"),
        (WORSE, "{} worse"),
        (EQUAL, "{} equal to it"),
        (UNTOLD, "cannot be told from it"),
    ):
        which = [one.cell for one in judged if one.verdict.removesuffix(ONE_SEED).replace(NO_SPREAD, UNTOLD) == verdict]
        if which:
            named = f" ({_named(results, which)})" if verdict in (BETTER, WORSE) and len(which) <= NAMED else ""
            number = "all" if len(which) == len(judged) else f"{len(which):,}"
            parts.append(f"{number} {words.format('is' if len(which) == 1 else 'are')}{named}")
    return f"Of {len(judged):,} cells compared with {baseline}, {_listed(parts)}."


def _costs(results: Results, best: int, found: Sequence[Difference]) -> str:
    """What the best costs, and which cell takes the least memory."""
    memory, step = _means(results, MEMORY), _means(results, STEP_TIME)
    known = [_amount(memory, best, results, "GiB"), _amount(step, best, results, "s a step", "")]
    if not any(known):
        return ""
    whose = results.cells[best].label
    if best in results.baselines:
        whose = "the baseline" if len(results.baselines) == 1 else f"a baseline, {whose}"
    text = f"Cost of the best ({whose}): {_listed([part for part in known if part])}"
    least = int(np.nanargmin(memory)) if not np.isnan(memory).all() else best
    if least == best or np.isnan(memory[best]) or memory[least] > 0.99 * memory[best]:
        return f"{text}."
    one = next((one for one in found if one.cell == least and one.pairs > 1), None)
    quality = "" if one is None else f"; in {results.primary.label} it {_standing(results, one)}"
    return (
        f"{text}. The least memory is that of {results.cells[least].label}: {_amount(memory, least, results, 'GiB')}{quality}."
    )


def _standing(results: Results, one: Difference) -> str:
    verdict = one.verdict.removesuffix(ONE_SEED)
    words = {BETTER: "is better than", WORSE: "is worse than", EQUAL: "equals"}.get(verdict, "cannot be told from")
    return f"{words} {'the' if len(results.baselines) == 1 else 'its'} baseline"


def _amount(means: np.ndarray, cell: int, results: Results, unit: str, than: str = " against {} baseline") -> str:
    """``0.45 GiB (−12 % against the baseline)``; nothing where it is not known."""
    if np.isnan(means[cell]):
        return ""
    baseline, the = results.compared.of[cell], "the" if len(results.baselines) == 1 else "its"
    text = f"{means[cell]:.3g} {unit}"
    if baseline in (None, cell) or np.isnan(means[baseline]):
        return text
    if means[cell] == means[baseline]:
        return f"{text} (as {the} baseline)"
    return f"{text} ({change(means[cell], means[baseline])}{than.format(the)})"


def _without(results: Results) -> list[str]:
    """The runs that ran out of memory, and those that ended otherwise than they should."""
    emulated = "oom.emulated" in results.runs and results.runs["oom.emulated"].eq(True).any()
    where = f"{'emulated ' if emulated else ''}{results.study.hardware}"
    budget = [results.runs[name].dropna() for name in ("oom.budget_gib", "budget_gib") if name in results.runs]
    budget = next((f", {values.iloc[0]:.3g} GiB" for values in budget if len(values)), "")
    sentences = []
    if found := _where(results, (OOM,)):
        sentences.append(f"Out of memory on the card ({where}{budget}): {found}.")
    if found := _where(results, (PREDICTED_OOM,)):
        sentences.append(f"Out of memory by the plan, and not run ({where}{budget}): {found}.")
    bad = [outcome for outcome in results.runs["outcome"].unique() if outcome not in ("completed", OOM, PREDICTED_OOM)]
    told = "; ".join(f"{outcome}{_because(results, outcome)}: {_where(results, (outcome,))}" for outcome in bad)
    if told:
        sentences.append(f"{told[0].upper()}{told[1:]}. Such runs are listed and count in no mean.")
    return [" ".join(sentences)] if sentences else []


def _because(results: Results, outcome: str) -> str:
    """`` (non-finite loss)``: what the runs of an outcome were diagnosed with; nothing where they were not."""
    found = results.runs.loc[results.runs["outcome"] == outcome, "diagnosis"] if "diagnosis" in results.runs else []
    names = dict.fromkeys(name for name in found if isinstance(name, str) and name)
    return f" ({', '.join(names)})" if names else ""


def _where(results: Results, outcomes: Sequence[str]) -> str:
    """Cells with runs of ``outcomes``: ``B, rank 4 (2 of 3 runs); C, rank 16``."""
    counts = [(cell, sum(cell.outcomes.get(outcome, 0) for outcome in outcomes)) for cell in results.cells]
    known = [(cell, count) for cell, count in counts if count]
    parts = [
        cell.label if count == len(cell.places) else f"{cell.label} ({count} of {len(cell.places)} runs)"
        for cell, count in known
    ]
    more = f"; and {len(parts) - NAMED} more cells" if len(parts) > NAMED + 1 else ""
    return "; ".join(parts[: NAMED if more else None]) + more


def _seeds(results: Results, means: np.ndarray, best: int, found: Sequence[Difference]) -> str:
    """What the seeds do not suffice for, and how many would."""
    most = int((~np.isnan(by_seed(results, METRIC + results.primary.name).values)).sum(axis=1).max())
    few = f"With {_many(most, 'seed')} a cell " + (
        "nothing is known of how training varies, and cells cannot be ranked; three or more seeds are needed."
        if most == 1
        else "the intervals rest on one degree of freedom; three or more seeds are needed to trust a ranking."
    )
    if most == 1:
        return few if np.count_nonzero(~np.isnan(means)) > 1 else ""
    needed = _needed(results, means, best, found)
    return f"{few if most < FEW else ''} {needed}".strip()


def _needed(results: Results, means: np.ndarray, best: int, found: Sequence[Difference]) -> str:
    """Seeds that would tell the best from the baseline, or the baseline from the next best, where these do not."""
    of = results.compared.of
    order = np.argsort(means if results.primary.lower_is_better else -means)
    others = (i for i in order.tolist() if i != best and of[i] == best and not np.isnan(means[i]))
    rival = next(others, best) if of[best] == best else best
    one = next((one for one in found if one.cell == rival and one.verdict == UNTOLD), None)
    if one is None or one.seeds < 2:
        return ""
    sample = by_item(results, METRIC + results.primary.name)
    rests = pd.Series(sample.values[rival] - sample.values[one.baseline])
    spread = float(rests.groupby(sample.seeds).mean().std())
    tests = sum(other.pairs > 1 for other in found)
    count = seeds_needed(one.mean, spread, tests)
    if count is not None and count <= one.seeds:
        return ""
    the = "the" if len(results.baselines) == 1 else "its"
    number = "more than a thousand seeds" if count is None else f"about {_rough(count)} seeds"
    return f"At the spread observed, {number} would be needed to tell {results.cells[rival].label} from {the} baseline."


def _rough(count: int) -> int:
    """Up to the next ten from twenty on, the next hundred from two hundred on."""
    step = 1 if count <= 20 else 10 if count <= 200 else 100
    return -(-count // step) * step


def _means(results: Results, column: str) -> np.ndarray:
    """(cells,): means over the seeds; NaN where there is no value."""
    return intervals(by_seed(results, column).values)[0]


def _unit(results: Results) -> str:
    return f" {results.primary.unit}" if results.primary.unit else ""


def _named(results: Results, cells: Sequence[int]) -> str:
    return "; ".join(results.cells[i].label for i in cells)


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _short(axis: str) -> str:
    return axis.rsplit(".", 1)[-1]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
