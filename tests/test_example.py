"""The committed example: an older study whose report can be made again from its collected table, without its runs."""

import shutil
from html import unescape

import pytest
from conftest import ROOT

from ablation.collect import collect
from ablation.errors import UserError
from ablation.report.formats.csv import as_csv
from ablation.report.page.page import report_page
from ablation.report.results import Results, read_runs
from ablation.report.study_report import report_of
from ablation.report.table import Table
from ablation.resolved import load_study

EXAMPLE = ROOT / "docs/example"
COLLECTED = ("study.json", "runs.parquet", "claims.csv", "recommended.csv", "ladder.csv")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of the collected files alone, elsewhere."""
    folder = tmp_path_factory.mktemp("example")
    for name in COLLECTED:
        shutil.copy(EXAMPLE / name, folder)
    name, study = load_study(folder / "study.json")
    return report_of(Results(study, read_runs(folder / "runs.parquet")), name, folder)


def test_its_tables_are_made_again_digit_by_digit(report):
    made = {block.name: block for section in report.sections for block in section.blocks if isinstance(block, Table)}
    committed = {path.stem: path.read_text() for path in (EXAMPLE / "tables").glob("*.csv")}
    assert {name: as_csv(table) for name, table in made.items()} == committed


def test_its_page_says_the_same_and_knows_all_runs(report):
    page, committed = unescape(report_page(report)), unescape((EXAMPLE / "report.html").read_text())
    assert len(report.runs) == 12 and all(run.id in page and run.id in committed for run in report.runs)
    assert all(sentence in committed and sentence in page for sentence in report.summary)


@pytest.mark.parametrize("content", [None, b"", b"junk", b"PAR1junkPAR1"])
def test_what_is_no_table_of_runs_and_no_plan_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    for read in (read_runs, lambda path: collect(path, tmp_path, ("fits",))):
        with pytest.raises(UserError, match=f"^{tmp_path}/file: is no "):
            read(tmp_path / "file")
