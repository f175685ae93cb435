r"""A table as LaTeX that needs ``\usepackage{booktabs}`` and nothing else.

Decimal points stand below each other: all numbers of a column are padded to one width by invisible characters.
"""

import re
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from ablation.report.formats.latex_text import latex
from ablation.report.table import Cell, Column, Row, Table

NUMBER = re.compile(r"([+\N{MINUS SIGN}-]?\d[\d,]*)((?:\.\d+)?(?:e[+-]?\d+)?(?: ± \d+(?:\.\d+)?)?(?: ?%)?)([*†]?)")
HEADS = (12, 8)  # characters of a line of a head; fewer where the table is too wide
WIDE = 26  # characters from which on a text column may break its lines
LINES = 36  # of a page
BREAK = r"\\"
LINE = 345.0  # points of a line of a bare article
SIZES = (("small", 6, 0.925), ("footnotesize", 4, 0.85), ("scriptsize", 3, 0.796))  # tabcolsep in pt; widths to those of 10 pt
WIDTHS = {**dict.fromkeys(".,:;!|'ijl", 2.8), **dict.fromkeys("mwMW±×−%", 8.0), " ": 3.4}  # points of Computer Modern at 10 pt
TEXT = 4.9  # points of a letter of running text
POINTS = re.compile(r"(?<=[._/:=,-])(?=\w)")  # where a long word may be broken
MAY_BREAK = "\N{ZERO WIDTH SPACE}"


class Widths(NamedTuple):
    """The longest integer part and the longest tail of a column's numbers."""

    whole: str
    tail: str


class Layout(NamedTuple):
    """How a table is set: columns whose lines are broken, with their characters; what numbers are padded to; sizes."""

    broken: dict[int, int]
    widths: Sequence[Widths]
    columns: str
    size: str
    separation: float
    head: int


def as_latex(table: Table) -> str:
    """A float; of what is longer than a page, one after another."""
    layout, fits = _layout(table)
    floats = [_float(table, rows, layout, fits, n) for n, rows in enumerate(_pages(table, layout.broken))]
    return "% needs \\usepackage{booktabs}\n" + "\\clearpage\n".join(floats)


def _layout(table: Table) -> tuple[Layout, bool]:
    """The largest size in which the table fits a line, else the smallest; and whether it fits."""
    natural = [_natural(table, i) for i in range(len(table.columns))]
    broken = _broken(table, natural)
    widths = [_widths(table, i) for i in range(len(table.columns))]
    columns = "".join(_spec(table, i, broken, widths[i]) for i in range(len(table.columns)))
    choices = [
        (Layout(broken, widths, columns, size, separation, head), scale) for size, separation, scale in SIZES for head in HEADS
    ]
    fitting = [
        layout for layout, scale in choices if _total(table, natural, broken, layout.separation, scale, layout.head) <= LINE
    ]
    return (fitting[0], True) if fitting else (choices[-1][0], False)


def _float(table: Table, rows: Sequence[Row], layout: Layout, fits: bool, number: int) -> str:
    """What is too wide for the line, stands out on both sides alike."""
    caption = f"\\textbf{{{latex(table.title)}.}}{' Continued.' if number else ''}"
    caption += f" {latex(table.caption)}" if table.caption and not number else ""
    lines = [
        "\\begin{table}[tbp]",
        "  \\centering\\setlength{\\belowcaptionskip}{6pt}",
        f"  \\caption{{{caption}}}",
        f"  \\label{{tab:{_label(table.name)}{'' if not number else f'-{number + 1}'}}}",
        f"  \\{layout.size}\\setlength{{\\tabcolsep}}{{{layout.separation}pt}}",
        *([] if fits else ["  \\makebox[\\linewidth][c]{%"]),
        f"  \\begin{{tabular}}{{@{{}}{layout.columns}@{{}}}}",
        "    \\toprule",
        f"    {_heads(table, layout.head)} \\tabularnewline",
        "    \\midrule",
    ]
    last: Row | None = None
    for row in rows:
        if last is not None and (rule := _rule(table, last, row, rows)):
            lines.append(f"    {rule}")
        lines.append(f"    {_row(table, row, layout)} \\tabularnewline")
        last = row
    return "\n".join([*lines, "    \\bottomrule", f"  \\end{{tabular}}{'' if fits else '}'}", "\\end{table}", ""])


def _row(table: Table, row: Row, layout: Layout) -> str:
    if row.kind == "group":
        return f"\\multicolumn{{{len(table.columns)}}}{{@{{}}l@{{}}}}{{\\emph{{{latex(row.cells[0].text)}}}}}"
    return " & ".join(
        _cell(cell, table.columns[i].numeric, layout.widths[i], layout.broken.get(i)) for i, cell in enumerate(row.cells)
    )


def _cell(cell: Cell, numeric: bool, widths: Widths, broken: int | None) -> str:
    found = NUMBER.fullmatch(cell.text) if numeric else None
    if found is None:
        text = latex(_breakable(cell.text, broken) if broken else cell.text)
        text = f"\\textbf{{{text}}}" if cell.best and text else text
        return f"\\raggedright {text}" if broken else text
    whole, tail, mark = found.groups()
    before, after = widths.whole[: len(widths.whole) - len(whole)], widths.tail[len(tail) :]
    text = latex(whole + tail)
    text = f"\\textbf{{{text}}}" if cell.best else text
    return f"{_phantom(before)}{text}{_beside(mark)}{_phantom(after)}"


def _breakable(text: str, most: int) -> str:
    """``text`` with marks where words longer than half a line of ``most`` characters may be broken."""
    return " ".join(_in_pieces(word, most) if len(word) > most // 2 else word for word in text.split())


def _in_pieces(word: str, most: int) -> str:
    size = max(1, most * 3 // 4)  # its letters may be wide
    pieces = [piece[start : start + size] for piece in POINTS.split(word) for start in range(0, len(piece), size)]
    return MAY_BREAK.join(pieces)


def _beside(mark: str) -> str:
    """A mark that takes no room, so that points stay aligned."""
    return f"\\rlap{{{latex(mark)}}}" if mark else ""


@cache
def _phantom(text: str) -> str:
    return f"\\hphantom{{{latex_keeping(text)}}}" if text else ""


def latex_keeping(text: str) -> str:
    """As :func:`latex`, with the blank at its start."""
    return ("~" if text.startswith(" ") else "") + latex(text)


def _widths(table: Table, i: int) -> Widths:
    found = [match for row in table.rows if row.kind != "group" and (match := NUMBER.fullmatch(row.cells[i].text))]
    return Widths(*(max((match[group] for match in found), key=len, default="") for group in (1, 2)))


def _heads(table: Table, most: int) -> str:
    """The heads, in lines of a few words; at the table's edges as flush as its rules."""
    last = len(table.columns) - 1
    heads = []
    for i, column in enumerate(table.columns):
        found = textwrap.wrap(column.head.replace("\N{NO-BREAK SPACE}", "\x00"), most, break_long_words=False)
        lines = ["~".join(map(latex, line.split("\x00"))) for line in found]
        place = "c" if column.numeric else "l"
        text = _stack(place, lines) if len(lines) > 1 else "".join(lines)
        edges = ("" if i else "@{}") + place + ("@{}" if i == last else "")
        heads.append(f"\\multicolumn{{1}}{{{edges}}}{{{text}}}")
    return " & ".join(heads)


def _stack(place: str, lines: Sequence[str]) -> str:
    return f"\\shortstack[{place}]{{{' '.join(f'{line} {BREAK}' for line in lines[:-1])} {lines[-1]}}}"


def _spec(table: Table, i: int, broken: dict[int, int], widths: Widths) -> str:
    """Numbers are padded and stand in the middle; those with a letter behind, such as ``1.26 M``, at the right."""
    if i in broken:
        return f"p{{{broken[i] * TEXT / 10:.1f}em}}"
    if not table.columns[i].numeric:
        return "l"
    lettered = any(
        row.cells[i].value is not None and not NUMBER.fullmatch(row.cells[i].text) for row in table.rows if row.cells[i:]
    )
    return "r" if lettered and not widths.whole else "c"


def _rule(table: Table, last: Row, row: Row, rows: Sequence[Row]) -> str:
    """A line after the model before training; a little space where a group of rows with one strategy ends."""
    if last.kind == "before" and row.kind != "before" and last is rows[0]:
        return "\\midrule"
    if not table.columns or table.columns[0].name != "strategy" or "group" in (last.kind, row.kind):
        return ""
    names = [other.cells[0].text for other in rows]
    grouped = max(names.count(name) for name in set(names)) > 1
    return "\\addlinespace" if grouped and last.cells[0].text != row.cells[0].text else ""


def _broken(table: Table, natural: Sequence[float]) -> dict[int, int]:
    """Columns of long texts, with the characters of their lines: they share what the others leave of a page's width."""
    longest = {i: _longest(table, i) for i, column in enumerate(table.columns) if not column.numeric}
    wide = {i: length for i, length in longest.items() if length > WIDE}
    separation, scale = SIZES[-1][1:]
    others = sum(
        _width(table.columns[i], natural[i], HEADS[0]) * scale + 2 * separation
        for i in range(len(table.columns))
        if i not in wide
    )
    if not wide or _total(table, natural, {}, *SIZES[0][1:], HEADS[0]) <= LINE:
        return {}
    room = max((1.3 * LINE - others - 2 * separation * len(wide)) / (TEXT * scale), 14 * len(wide))
    weights = {i: min(length, 150) ** 0.5 for i, length in wide.items()}
    return {i: min(length, max(14, int(room * weights[i] / sum(weights.values())))) for i, length in wide.items()}


def _longest(table: Table, i: int) -> int:
    return max((len(row.cells[i].text) for row in table.rows if row.kind != "group"), default=0)


def _total(table: Table, natural: Sequence[float], broken: dict[int, int], separation: float, scale: float, head: int) -> float:
    """Points that the table takes in a size."""
    widths = (
        broken[i] * TEXT if i in broken else _width(table.columns[i], natural[i], head) for i in range(len(table.columns))
    )
    return scale * sum(widths) + 2 * separation * (len(table.columns) - 1)


def _width(column: Column, natural: float, most: int) -> float:
    """Points that a column takes at 10 pt, with its head in lines of at most so many characters."""
    head = textwrap.wrap(column.head, most, break_long_words=False)
    return max([natural, *map(_points, head)])


def _natural(table: Table, i: int) -> float:
    """Points that the cells of a column take at 10 pt."""
    return max((_points(row.cells[i].text) for row in table.rows if row.kind != "group"), default=0)


def _points(text: str) -> float:
    return sum(map(_width_of, text))


@cache
def _width_of(letter: str) -> float:
    return WIDTHS.get(letter, 7.2 if letter.isupper() else 5.1)


def _pages(table: Table, broken: dict[int, int]) -> list[list[Row]]:
    pages: list[list[Row]] = [[]]
    used = 0
    for row in table.rows:
        lines = max([1, *(-(-len(row.cells[i].text) // most) for i, most in broken.items() if i < len(row.cells))])
        if used + lines > LINES and pages[-1]:
            pages.append([])
            used = 0
        pages[-1].append(row)
        used += lines
    return pages


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)
