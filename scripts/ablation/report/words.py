"""The summary of a report, in sentences that hold for the numbers at hand."""

from ablation.report.results import CellResult, Results, in_words
from ablation.report.tables import difference, shown


def summary(results: Results) -> list[str]:
    """What was compared, what it brought, and what cannot be told."""
    sentences = [_compared(results)]
    best, before = results.best(), results.before(results.primary.name)
    if best is None:
        return [*sentences, "No run reached an evaluation, so there is nothing to compare."]
    if before is not None:
        sentences.append(_gain(results, best, before))
    sentences += [text for text in (_against_baseline(results, best), _seeds(results)) if text]
    return sentences


def _compared(results: Results) -> str:
    counts = results.runs["outcome"].value_counts().to_dict()
    ended = ", ".join(f"{count} {in_words(outcome)}" for outcome, count in counts.items())
    fixed = ", ".join(f"{axis} {value}" for axis, value in results.fixed.items() if value is not None)
    return f"{len(results.runs)} runs in {len(results.cells)} cells over {_listed(results.varying)}: {ended}." + (
        f" Throughout: {fixed}." if fixed else ""
    )


def _gain(results: Results, best: CellResult, before: float) -> str:
    metric = results.primary
    column = f"metric.{metric.name}"
    means = [found.mean for cell in results.cells if (found := cell.estimate(column))]
    sign = 1 if metric.lower_is_better else -1
    better = sum(sign * mean < sign * before for mean in means)
    low, high = min(means), max(means)
    unit = f" {metric.unit}" if metric.unit else ""
    span = (
        f"{low:.{metric.digits}f}"
        if f"{low:.{metric.digits}f}" == f"{high:.{metric.digits}f}"
        else f"{low:.{metric.digits}f} to {high:.{metric.digits}f}"
    )
    change = (best.estimate(column).mean - before) / before
    return (
        f"On held-out data the {metric.label} went from {before:.{metric.digits}f}{unit} before fine-tuning to {span}{unit};"
        f" it improved in {better} of {len(means)} cells. The best mean is that of {best.label} ({change:+.0%})."
    )


def _against_baseline(results: Results, best: CellResult) -> str:
    baseline = next((cell for cell in results.cells if results.is_baseline(cell)), None)
    if baseline is None:
        return ""
    found = difference(results, best, baseline)
    if best is baseline:
        return f"It is the baseline ({baseline.label})."
    if found is None:
        return ""
    metric, text = results.primary, ""
    difference_text = f"{shown(found, metric.digits)}{' ' + metric.unit if metric.unit else ''}"
    if found.half_width is None:
        text = "; one seed gives no interval"
    elif abs(found.mean) <= found.half_width:
        text = ", an interval that holds zero: the two cannot be told apart with these seeds"
    return f"Its difference to the baseline ({baseline.label}), paired by seed, is {difference_text}{text}."


def _seeds(results: Results) -> str:
    most = max(found.count for cell in results.cells if (found := cell.estimate(f"metric.{results.primary.name}")))
    if most >= 3:
        return ""
    seeds = f"{most} seed{'s' if most > 1 else ''}"
    return f"With {seeds} a cell the intervals are wide or missing; three or more are needed to rank cells."


def _listed(words: list[str]) -> str:
    words = [word.rsplit(".", 1)[-1] for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
