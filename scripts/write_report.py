"""Write the report of a study: a self-contained page, a PDF, and its tables and figures as files."""

import argparse
import sys
from pathlib import Path

from ablation.cli import call
from ablation.files import replace_folder, write_bytes, write_text
from ablation.report.content import Panels, Report
from ablation.report.figure import Figure
from ablation.report.figures.panels import panel_figure
from ablation.report.figures.save import save
from ablation.report.formats.files import write_table
from ablation.report.page.page import report_page
from ablation.report.pdf.pdf import report_pdf
from ablation.report.results import Results, read_runs
from ablation.report.study_report import report_of
from ablation.report.table import Table
from ablation.resolved import load_study


def write_parts(report: Report, folder: Path) -> None:
    """The tables in ``tables/``, the figures in ``figures/``."""
    blocks = [block for section in report.sections for block in section.blocks]
    with replace_folder(folder / "tables") as tables:
        for table in (block for block in blocks if isinstance(block, Table)):
            write_table(table, tables)
    with replace_folder(folder / "figures") as figures:
        for block in (block for block in blocks if isinstance(block, Figure | Panels)):
            save(panel_figure(block) if isinstance(block, Panels) else block, figures)


def main() -> None:
    """Read the collected runs, write all forms of the report, say where the page is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, with runs.parquet")
    args = parser.parse_args()
    name, study = load_study(args.study)
    report = report_of(Results(study, read_runs(args.folder / "runs.parquet")), name, args.folder)
    write_parts(report, args.folder)
    write_bytes(args.folder / "report.pdf", report_pdf(report))
    write_text(args.folder / "report.html", report_page(report))
    sys.stdout.write(f"report: {args.folder / 'report.html'}\n")


if __name__ == "__main__":
    call(main)
