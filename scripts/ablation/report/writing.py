"""All forms of a study's report as files."""

from pathlib import Path

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

FILES, FOLDERS = ("report.pdf", "report.html"), ("tables", "figures")


def write_report(study: Path, folder: Path, output: Path) -> None:
    """Page, PDF, tables and figures in ``output``, from what is in ``folder``: the same files give the same bytes.

    ``study``: its study.json; ``folder``: where its runs.parquet is, as the project's root sees it.
    """
    name, settings = load_study(study)
    report = report_of(Results(settings, read_runs(folder / "runs.parquet")), name, folder)
    _write_parts(report, output)
    write_bytes(output / "report.pdf", report_pdf(report))
    write_text(output / "report.html", report_page(report))


def _write_parts(report: Report, folder: Path) -> None:
    blocks = [block for section in report.sections for block in section.blocks]
    with replace_folder(folder / "tables") as tables:
        for table in (block for block in blocks if isinstance(block, Table)):
            write_table(table, tables)
    with replace_folder(folder / "figures") as figures:
        for block in (block for block in blocks if isinstance(block, Figure | Panels)):
            save(panel_figure(block) if isinstance(block, Panels) else block, figures)
