"""A table as files for other programs: CSV, Markdown, LaTeX."""

from pathlib import Path

from ablation.files import write_text
from ablation.report.formats.csv import as_csv
from ablation.report.formats.latex import as_latex
from ablation.report.formats.markdown import as_markdown
from ablation.report.table import Table

FORMATS = {"csv": as_csv, "md": as_markdown, "tex": as_latex}


def write_table(table: Table, folder: Path) -> None:
    """``<name>.csv``, ``<name>.md`` and ``<name>.tex`` in ``folder``."""
    for ending, form in FORMATS.items():
        write_text(folder / f"{table.name}.{ending}", form(table))
