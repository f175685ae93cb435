"""Studies as lines of text: how far each is, then its runs."""

from collections.abc import Sequence

from ablation.live.attempt import duration
from ablation.live.study import Study
from ablation.live.table import QUIET, STYLES, Line, reason_lines, table

BAR = 20
BLOCKS = "█░"  # what is done, and what is not
SMALLEST = 3  # lines of a table that says more than its study's head


def picture(studies: Sequence[Study], width: int, height: int | None, blocks: str = BLOCKS) -> list[Line]:
    """All studies in lines of ``width`` characters, ``height`` of them at most; without one, every run has its line.

    Studies that are at work come first, and finished ones last. A finished one has a table where there is no other.
    """
    ordered = sorted(studies, key=lambda study: (study.finished, not study.at_work, not study.under_way))
    heads = [_head(study, width, blocks) for study in ordered]
    if height is None:
        return _joined(heads, [table(study.runs, width, None) for study in ordered])
    shown = _shown(ordered, heads, height)
    more = len(ordered) - shown
    room = height - sum(1 + len(head) for head in heads[:shown]) + (not more)
    lines = _joined(heads[:shown], _tables(ordered[:shown], width, room))
    if more:
        lines.append(Line([(f"and {more} more {'study' if more == 1 else 'studies'}", QUIET)]))
    return lines[:height]


def _shown(ordered: Sequence[Study], heads: Sequence[Sequence[Line]], height: int) -> int:
    """How many studies have a place: the first, with its table where it is under way, and as many heads as fit."""
    used = SMALLEST if ordered and ordered[0].under_way else 0
    for count, head in enumerate(heads):
        used += len(head) + 1
        last = count == len(heads) - 1
        if count and used - last > height:
            return count
    return len(heads)


def _tables(studies: Sequence[Study], width: int, room: int) -> list[list[Line]]:
    """The tables that have a place in ``room`` lines: those of studies under way before those of the ones to come."""
    with_runs = [study for study in studies if study.runs]
    to_come = [study for study in with_runs if not study.finished and not study.under_way]
    found: dict[Study, list[Line]] = {}
    under_way = [study for study in with_runs if study.under_way]
    for group in (under_way, to_come) if under_way or to_come else (with_runs,):
        found |= _shared_out(group, width, room - sum(map(len, found.values())))
    return [found.get(study, []) for study in studies]


def _shared_out(studies: Sequence[Study], width: int, room: int) -> dict[Study, list[Line]]:
    """Tables of the studies, or of the first of them, in equal shares; what one does not need is the others'."""
    studies = studies[: max(0, room) // SMALLEST]
    found: dict[Study, list[Line]] = {}
    for study in sorted(studies, key=lambda study: len(table(study.runs, width, room))):
        found[study] = table(study.runs, width, room // (len(studies) - len(found)))
        room -= len(found[study])
    return found


def _joined(heads: Sequence[Sequence[Line]], tables: Sequence[Sequence[Line]]) -> list[Line]:
    """Heads with their tables, an empty line between two studies."""
    blocks = [[*head, *below, Line([])] for head, below in zip(heads, tables, strict=True)]
    return [line for block in blocks for line in block][:-1]


def _head(study: Study, width: int, blocks: str) -> list[Line]:
    """How far a study is, what is left, and how many of its runs are in which state; or why it has none."""
    title = [(study.name, "bold")]
    if study.runs:
        done, left = study.done(), study.left()
        title += [] if done is None else _bar(done, blocks)
        title.append((f"  {duration(left.seconds)} of training left, {left.at_once} at a time" if left else "", ""))
    elif not study.plan_failed:
        title.append(("  no run has begun" if study.planned else f"  {study.planning}", ""))
    reason = []
    if study.plan_failed:
        title.append(("  the plan failed", STYLES["failed"]))
        reason = reason_lines(study.plan_failed, "failed", width)
    return [Line(title), *reason, *(_counts(study, width) if study.runs else [])]


def _bar(done: float, blocks: str) -> list[tuple[str, str]]:
    full = int(done * BAR)
    return [("  ", ""), (blocks[0] * full, "green"), (blocks[1] * (BAR - full), QUIET), (f" {int(done * 100)}%", "")]


def _counts(study: Study, width: int) -> list[Line]:
    """How many runs are in which state, in as many lines as it takes."""
    pieces = [(f"{len(study.runs)} runs:", "")]
    lines = [pieces]
    for state, count in study.counts.items():
        text = f" {count} {state}"
        if sum(len(piece) for piece, _ in lines[-1]) + len(text) + 1 > width:
            lines.append([])
        end = "" if state == list(study.counts)[-1] else ","
        lines[-1].append((text + end, STYLES.get(state, "")))
    return [Line(line) for line in lines]
