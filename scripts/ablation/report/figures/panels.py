"""Pictures of a few held-out items: before training, and of the best cell of each strategy."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from ablation.report.content import Panels
from ablation.report.figure import Figure
from ablation.report.figures.choice import best_of_each_strategy, names
from ablation.report.figures.style import FONT, PAGE, drawing, folded, plain, styled
from ablation.report.results import Results
from ablation.systems.opening import Unreadable, opened, read_rgb

MOST_ITEMS, MOST_MODELS = 3, 5
WIDE = 2.2  # width by height, from which on pictures are set below each other
TALLEST = 9.0  # inches
SMALLEST = 0.6  # of full width; below, fewer items are drawn


def panels_of(results: Results, folder: Path) -> Panels | None:
    """Pictures of at most three items, the pretrained model first, then the best cell of each strategy.

    ``folder``: the study's, with ``base/`` and ``runs/``. None where there are no pictures.
    """
    columns = [("before training", _pictures(path)) for path in sorted((folder / "base").glob("*"))[:1]]
    cells = best_of_each_strategy(results)[: MOST_MODELS - len(columns)]
    for cell, name in zip(cells, names(results, cells), strict=True):
        found = (_pictures(folder / "runs" / run) for run in cell.ids)
        columns.append((name, next((pictures for pictures in found if pictures), {})))
    columns = [(name, pictures) for name, pictures in columns if pictures]
    if not columns:
        return None
    rows = _rows([pictures for _, pictures in columns])
    chosen = [rows[int(i)] for i in np.linspace(0, len(rows) - 1, min(MOST_ITEMS, len(rows))).round()]
    count = results.runs["strategy"].nunique()
    caption = (
        f"{results.study.settings.pictured()} The first seed of the best cell of each strategy"
        + (f" ({len(cells)} of {count})" if len(cells) < count else "")
        + "."
        + (f" {len(chosen)} of {len(rows)} items." if len(chosen) < len(rows) else "")
    )
    return Panels("panels", "Held-out items, before and after", caption, [name for name, _ in columns], chosen)


def panel_figure(panels: Panels) -> Figure:
    """The same as one figure: models side by side, or below each other where the pictures are wide."""
    shapes = [picture.shape for _, paths in panels.rows for path in paths if (picture := _opened(path)) is not None]
    aspect = float(np.median([width / height for height, width, _ in shapes])) if shapes else 1.0
    room = max(1, int(TALLEST / (SMALLEST * _height(len(panels.columns), aspect))))
    if len(panels.rows) > room:
        rows = [panels.rows[int(i)] for i in np.linspace(0, len(panels.rows) - 1, room).round()]
        panels = replace(panels, rows=rows, caption=f"{panels.caption} Here: {', '.join(name for name, _ in rows)}.")
    items = ", ".join(name for name, _ in panels.rows)
    alt = f"Pictures of {items}, for each: {', '.join(panels.columns)}. {panels.caption}"
    return Figure(panels.name, panels.title, panels.caption, alt, partial(_draw, panels, aspect))


@styled()
def _draw(panels: Panels, aspect: float) -> Drawing:
    grid = [[_opened(path) for path in paths] for _, paths in panels.rows]
    heads = list(panels.columns)
    sides = [name for name, _ in panels.rows]
    if aspect > WIDE:
        return _stacked(grid, sides, heads, aspect)
    width = (PAGE - 0.3) / len(heads)
    figure = drawing(PAGE, min(TALLEST, 0.25 + len(sides) * _height(len(heads), aspect)))
    axes = figure.subplots(len(sides), len(heads), squeeze=False)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for i, row in enumerate(grid):
        for j, picture in enumerate(row):
            _show(axes[i, j], picture)
            if i == 0:
                axes[i, j].set_title(folded(heads[j], int(width * 13)), fontsize=FONT)
        axes[i, 0].set_ylabel(plain(sides[i], 24), fontsize=FONT)
    return figure


def _height(models: int, aspect: float) -> float:
    """Inches that an item takes at full width."""
    if aspect > WIDE:
        return models * ((PAGE - 0.8) / aspect + 0.05) + 0.22
    return (PAGE - 0.3) / models / aspect + 0.06


def _stacked(grid: Sequence, sides: list[str], heads: list[str], aspect: float) -> Drawing:
    """A block an item, in it a line a model."""
    figure = drawing(PAGE, min(TALLEST, len(sides) * _height(len(heads), aspect)))
    blocks = figure.subfigures(len(sides), 1, squeeze=False)[:, 0]
    for block, side, row in zip(blocks, sides, grid, strict=True):
        axes = block.subplots(len(heads), 1, squeeze=False)[:, 0]
        axes[0].set_title(plain(side), fontsize=FONT, loc="left", weight="bold")
        for one, head, picture in zip(axes, heads, row, strict=True):
            _show(one, picture)
            one.set_ylabel(folded(head, 18, 3), fontsize=FONT - 1, rotation=0, ha="right", va="center")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.015, wspace=0, hspace=0)
    return figure


def _show(axes: Axes, picture: np.ndarray | None) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if picture is None:
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", color="0.4", transform=axes.transAxes)
    else:
        axes.imshow(picture, aspect="equal", interpolation="antialiased")


def _opened(path: Path | None) -> np.ndarray | None:
    """A picture, no larger than it is printed; None for one that cannot be read."""
    if path is None:
        return None
    try:
        picture = read_rgb(path, upright=False, background="white")
    except (OSError, Unreadable):
        return None
    picture.thumbnail((round(PAGE * 300), round(PAGE * 300)))
    return np.asarray(picture)


def _pictures(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder / "pictures").glob("*.png")) if _is_picture(path)}


def _is_picture(path: Path) -> bool:
    try:
        with opened(path) as picture:
            picture.verify()
    except (OSError, Unreadable):
        return False
    return True


def _rows(columns: Sequence[dict[str, Path]]) -> list[tuple[str, list[Path | None]]]:
    """The items that the models have pictures of. A name's last word may tell the outcome: ``rollout-40-missed``."""
    rows: dict[str, list[Path | None]] = {}
    for stem in dict.fromkeys(stem for pictures in columns for stem in pictures):
        found = [pictures.get(stem) or _alike(stem, pictures) for pictures in columns]
        same = all(path is None or path.stem == stem for path in found)
        rows.setdefault(stem if same else stem.rpartition("-")[0], found)
    return sorted(rows.items())


def _alike(stem: str, pictures: dict[str, Path]) -> Path | None:
    start, dash, _ = stem.rpartition("-")
    found = [path for other, path in pictures.items() if dash and other.rpartition("-")[0] == start]
    return found[0] if len(found) == 1 else None
