"""Studies as lines of text: how far each is, then its runs."""

from collections.abc import Sequence

from ablation.live.attempt import duration
from ablation.live.study import Study
from ablation.live.table import QUIET, STYLES, Line, table

BAR = 20
BLOCKS = "█░"  # what is done, and what is not


def picture(studies: Sequence[Study], width: int, height: int | None, blocks: str = BLOCKS) -> list[Line]:
    """All studies in lines of ``width`` characters, ``height`` of them at most; without one, every run has its line.

    Where one study is still under way, only those that are have a table.
    """
    heads = [_head(study, width, blocks) for study in studies]
    under_way = [study for study in studies if not study.finished]
    with_table = studies if height is None else under_way or studies
    room = None if height is None else height - sum(1 + len(head) for head in heads)
    lines: list[Line] = []
    to_come = len(with_table)
    for study, head in zip(studies, heads, strict=True):
        lines += [*head]
        if study in with_table:
            below = table(study.runs, width, None if room is None else max(0, room) // to_come)
            room, to_come = room if room is None else room - len(below), to_come - 1
            lines += below
        lines.append(Line([]))
    return lines[:-1] if height is None else lines[:-1][:height]


def _head(study: Study, width: int, blocks: str) -> list[Line]:
    """How far a study is, what is left, and how many of its runs are in which state."""
    name = (study.name, "bold")
    if not study.runs:
        return [Line([name, ("  no run has begun" if study.planned else "  the plan is being made", "")])]
    done = study.done()
    bar = [] if done is None else _bar(done, blocks)
    left = study.left()
    time = f"  {duration(left.seconds)} of training left, {left.at_once} at a time" if left else ""
    return [Line([name, *bar, (time, "")]), *_counts(study, width)]


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
