"""All that a report says, in order and in no form yet: page, PDF and the files of tables and figures are made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablation.report.figure import Figure
from ablation.report.table import Table


@dataclass(frozen=True)
class Panels:
    """Pictures side by side: a row an item, a column a model, the one before training first."""

    name: str
    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Path | None]]]
    """Name of the item, and a PNG file for each column; None where there is none."""


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and what is shown below them."""

    name: str
    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Table | Figure | Panels] = ()


@dataclass(frozen=True)
class RunDetail:
    """One run, as far as a reader wants to follow a number to it."""

    id: str
    outcome: str
    axes: Mapping[str, str]
    numbers: Mapping[str, str]
    """What it measured, by label, as text with units."""
    remark: str
    """Where its memory ended, its diagnosis, or why it was not submitted; may be empty."""
    origin: Mapping[str, str]
    """Machine, GPU, driver, packages, commit, time."""
    command: str
    """Repeats the run in a folder of its own, from the project's root."""
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """``step`` and ``loss``; empty for a run that has not trained."""
    links: Mapping[str, str] = field(default_factory=dict)
    """What lies in its folder, by label, relative to the page: settings, log, history, manifest, adapter, TensorBoard."""
    pictures: Sequence[str] = ()
    """PNG files relative to the page."""


@dataclass(frozen=True)
class Report:
    """A study's report."""

    name: str
    """Of the study."""
    title: str
    scale: str
    summary: Sequence[str]
    """What was compared, what won by how much, what could not be told."""
    sections: Sequence[Section]
    runs: Sequence[RunDetail]
    settings: str
    """The resolved study as YAML."""
