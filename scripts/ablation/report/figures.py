"""Figures of the report as SVG text. One style for all: readable in print, in grey and by the colour-blind."""

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt

from ablation.report.results import MEMORY, Results

MARKERS = "osD^vPX*<>"
STYLES = ["-", "--", "-.", ":"]
SMOOTHING = 0.1  # share of a run's steps that the loss curves are averaged over


def style() -> None:
    """Fonts, grid and colours."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind", font_scale=1.05)
    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "ablation",
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.35,
            "legend.frameon": False,
        }
    )


def quality_against_memory(results: Results) -> str | None:
    """A point a cell: the primary metric, with its interval, against peak memory."""
    rows = [(cell, cell.estimate(f"metric.{results.primary.name}"), cell.estimate(MEMORY)) for cell in results.cells]
    rows = [row for row in rows if row[1] and row[2]]
    if not rows:
        return None
    figure, axes = _figure()
    looks = _looks(results)
    for cell, quality, memory in rows:
        colour, marker = looks[cell.strategy]
        axes.errorbar(
            memory.mean, quality.mean, yerr=quality.half_width, color=colour, marker=marker, ms=6, capsize=2.5, lw=1.2
        )
        rest = {a: v for a, v in cell.axes.items() if a != "strategy" and v is not None}
        text = ", ".join(f"{a.rsplit('.', 1)[-1]} {v}" for a, v in rest.items())
        axes.annotate(text, (memory.mean, quality.mean), xytext=(6, 5), textcoords="offset points", fontsize=7.5)
    for name, (colour, marker) in looks.items():
        axes.plot([], [], color=colour, marker=marker, ls="", label=name)
    axes.set_xlabel(f"memory, GiB ({results.memory_kind})")
    axes.set_ylabel(_label(results))
    axes.margins(x=0.14, y=0.14)
    axes.legend(title="strategy")
    return _svg(figure)


def loss_curves(results: Results, histories: Mapping[str, pd.DataFrame]) -> str | None:
    """Smoothed training loss: the mean over the seeds of each cell, and their range."""
    figure, axes = _figure()
    looks, drawn = _looks(results), False
    counts: dict[str, int] = {}
    for cell in results.cells:
        curves = [_smooth(histories[run]) for run in cell.runs["run"] if run in histories and len(histories[run])]
        if not curves:
            continue
        drawn = True
        length = min(map(len, curves))
        stack = np.stack([curve.to_numpy()[:length] for curve in curves])
        steps = curves[0].index[:length]
        colour, _ = looks[cell.strategy]
        line = STYLES[counts.setdefault(cell.strategy, 0) % len(STYLES)]
        counts[cell.strategy] += 1
        axes.plot(steps, stack.mean(axis=0), color=colour, ls=line, lw=1.4, label=cell.label)
        axes.fill_between(steps, stack.min(axis=0), stack.max(axis=0), color=colour, alpha=0.15, lw=0)
    if not drawn:
        plt.close(figure)
        return None
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss")
    axes.legend(fontsize=8)
    return _svg(figure)


def before_and_after(results: Results, items: pd.DataFrame) -> str:
    """The primary metric of each held-out item, before and after fine-tuning, by strategy.

    ``items`` has the columns item, strategy, value and before, a row a run and item.
    """
    names = list(dict.fromkeys(items["item"]))
    figure, axes = _figure()
    looks = _looks(results)
    before = items.groupby("item", sort=False)["before"].mean()
    axes.plot(
        range(len(names)),
        [before[name] for name in names],
        ls="",
        marker="_",
        ms=42,
        mew=2,
        color="0.35",
        label="before",
    )
    for i, (strategy, (colour, marker)) in enumerate(looks.items()):
        found = items[items["strategy"] == strategy]
        offset = (i - (len(looks) - 1) / 2) * 0.16
        axes.plot(
            [names.index(n) + offset for n in found["item"]],
            found["value"],
            ls="",
            marker=marker,
            color=colour,
            alpha=0.8,
            label=strategy,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(_label(results))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(looks) + 1, markerscale=0.5)
    return _svg(figure)


def _smooth(history: pd.DataFrame) -> pd.Series:
    window = max(1, round(SMOOTHING * len(history)))
    return history.set_index("step")["loss"].rolling(window, min_periods=1).mean()


def _label(results: Results) -> str:
    metric = results.primary
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.label}{unit} ({'lower' if metric.lower_is_better else 'higher'} is better)"


def _looks(results: Results) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each strategy."""
    names = list(dict.fromkeys(results.runs["strategy"]))
    palette = sns.color_palette("colorblind", max(len(names), 3))
    return {name: (palette[i], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def _figure():
    style()
    return plt.subplots(figsize=(5.4, 3.7), layout="constrained")


def _svg(figure) -> str:
    """The figure as an <svg> element that scales with the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    return re.sub(
        r'<svg[^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg \1 xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img">',
        svg,
        count=1,
        flags=re.S,
    )
