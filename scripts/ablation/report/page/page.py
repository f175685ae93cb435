"""The report as one self-contained HTML file."""

import html
import json
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ablation.report.content import Panels, Report, RunDetail
from ablation.report.page.pictures import as_image, embedded
from ablation.report.page.templates import HERE, environment, policy
from ablation.report.table import Row, Table

POINTS, ALL_POINTS = 200, 60_000  # of a run's curve; of all curves, so that a page of 1,000 runs stays small
LONG = 42  # characters from which a column of text may break its lines


def report_page(report: Report) -> str:
    """The HTML of a report. Nothing is fetched from a network, nothing runs but its own script."""
    style, script = (HERE / "page.css").read_text(encoding="utf-8"), (HERE / "page.js").read_text(encoding="utf-8")
    place = {run.id: index for index, run in enumerate(report.runs)}
    pictures = embedded(path for panels in _blocks(report, Panels) for _, row in panels.rows for path in row if path)
    long = {table.name: _long_columns(table) for table in _blocks(report, Table)}
    return environment().get_template("page.html.j2").render(
        report=report,
        policy=policy(style, script),
        style=style,
        script=script,
        data=_as_json({"runs": _runs(report.runs)}),
        outcomes=_outcomes(report.runs),
        runs=lambda ids: link(ids, place),
        long=long,
        entries=lambda table, row: Markup(_entries(table, row, long[table.name], place)),
        grouped=_grouped,
        drawn=as_image,
        picture=pictures.__getitem__,
    )  # fmt: skip


def _entries(table: Table, row: Row, long: set[str], place: dict[str, int]) -> str:
    """The entries of a row. A template takes half a minute for those of 10,000 runs."""
    found = []
    for i, (column, cell) in enumerate(zip(table.columns, row.cells, strict=False)):
        tag, scope = ("th", ' scope="row"') if not i and not column.numeric else ("td", "")
        kind = ' class="n"' if column.numeric else ' class="long"' if column.name in long else ""
        value = "" if cell.value is None else f' data-v="{cell.value}"'
        text = html.escape(cell.text)
        text = f'<a href="{html.escape(link(cell.runs, place))}">{text}</a>' if cell.runs else text
        text = f"<strong>{text}</strong>" if cell.best else text
        note = ' <span class="tag">baseline</span>' if not i and row.kind == "baseline" else ""
        found.append(f"<{tag}{scope}{kind}{value}>{text}{note}</{tag}>")
    return "".join(found)


def link(ids: Sequence[str], place: dict[str, int]) -> str:
    """The address of a run, or of several by their places: ``#runs=0-2,5``."""
    if len(ids) == 1:
        return f"#run={ids[0]}"
    found = sorted(place[run] for run in ids)
    stretches = [list(stretch) for _, stretch in groupby(enumerate(found), lambda pair: pair[1] - pair[0])]
    ends = [(stretch[0][1], stretch[-1][1]) for stretch in stretches]
    return "#runs=" + ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _outcomes(runs: Sequence[RunDetail]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.outcome, []).append(run.id)
    return found


def _runs(runs: Sequence[RunDetail]) -> list[dict[str, Any]]:
    """What the script shows of each run."""
    points = min(POINTS, max(2, ALL_POINTS // max(1, len(runs))))
    return [
        {
            **{name: getattr(run, name) for name in ("id", "outcome", "remark", "command")},
            **{name: dict(getattr(run, name)) for name in ("axes", "numbers", "origin")},
            "curve": _thinned(run.curve, points),
            "links": {label: quote(path) for label, path in run.links.items()},
            "pictures": [quote(path) for path in run.pictures],
        }
        for run in runs
    ]


def _thinned(curve: Any, points: int) -> dict[str, list[float | None]] | None:
    """Every so many steps of a curve and its last, in four digits; what is not finite is None."""
    if not curve:
        return None
    every = -(-len(curve["step"]) // points)
    chosen = slice((len(curve["step"]) - 1) % every, None, every)
    losses = [float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in curve["loss"][chosen]]
    return {"step": [int(step) for step in curve["step"][chosen]], "loss": losses}


def _as_json(value: Any) -> str:
    """JSON that may stand in an HTML file: no ``<`` ends its element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _long_columns(table: Table) -> set[str]:
    """Columns of text whose lines may break."""
    return {
        column.name
        for number, column in enumerate(table.columns)
        if not column.numeric
        and any(row.kind != "group" and len(row.cells[number].text) > LONG for row in table.rows)
    }  # fmt: skip


def _grouped(blocks: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Neighbours of one kind together: figures stand side by side."""
    return [(kind, list(found)) for kind, found in groupby(blocks, lambda block: type(block).__name__)]


def _blocks(report: Report, kind: type) -> list[Any]:
    return [block for section in report.sections for block in section.blocks if isinstance(block, kind)]
