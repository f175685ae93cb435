"""One page over all studies that have a report: how their runs ended, what came out, and where the rest is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from pyarrow import parquet

from ablation.errors import UserError
from ablation.report.page.templates import HERE, environment, policy
from ablation.report.results import Results, in_words
from ablation.report.words import summary
from ablation.resolved import load_study

FORMS = {"page": "report.html", "PDF": "report.pdf", "runs as CSV": "runs.csv"}
HEADLINE = slice(1, 3)  # of the summary: what was reached, after what was compared


@dataclass(frozen=True)
class StudyEntry:
    """A study as the index shows it."""

    name: str
    title: str
    scale: str
    outcomes: Mapping[str, int]
    headline: str
    day: str
    """Of its last training, in UTC; may be empty."""
    files: Mapping[str, str]
    """By label, relative to the index; ``page`` is always there."""

    @property
    def count(self) -> int:
        """How many runs it has."""
        return sum(self.outcomes.values())


def index_page(studies: Sequence[StudyEntry]) -> str:
    """The HTML of the index."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return environment().get_template("index.html.j2").render(studies=studies, style=style, policy=policy(style))


def studies_of(results: Path) -> list[StudyEntry]:
    """All studies of a tree of results that have a page, by scale and name."""
    folders = [page.parent for page in sorted(results.glob("*/*/report.html"))]
    return [_entry(folder, results) for folder in folders if (folder / "runs.parquet").is_file()]


def _entry(folder: Path, results: Path) -> StudyEntry:
    runs, scale = _runs(folder / "runs.parquet"), folder.parent.name
    title, headline, runs = _told(folder, runs)
    outcomes = {in_words(name): count for name, count in runs["outcome"].value_counts().items()}
    written = runs["origin.written"].dropna() if "origin.written" in runs else []
    day = max(written)[:10] if len(written) else ""
    there = {label: folder / file for label, file in FORMS.items() if (folder / file).is_file()}
    files = {label: quote(path.relative_to(results).as_posix()) for label, path in there.items()}
    return StudyEntry(folder.name, title, scale, outcomes, headline, day, files)


def _told(folder: Path, runs: pd.DataFrame) -> tuple[str, str, pd.DataFrame]:
    """Title, headline, and the runs as the report counts them.

    A study that another version of the workflow resolved is named and left to its own page.
    """
    try:
        name, study = load_study(folder / "study.json")
        results = Results(study, runs)
        return study.title or name, " ".join(summary(results)[HEADLINE]), results.runs
    except (UserError, ValueError, KeyError):
        return folder.name, "Resolved by another version of the workflow; see its page.", runs


def _runs(path: Path) -> pd.DataFrame:
    """The table of runs without their curves, which are most of it."""
    columns = [name for name in parquet.read_schema(path).names if not name.startswith("curve.")]
    return pd.read_parquet(path, columns=columns)
