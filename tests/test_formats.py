"""Every file says its version: an older study still reports the same numbers, a later one is refused in one line."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from ablation import formats
from ablation.collect import collect
from ablation.errors import UserError
from ablation.files import write_csv, write_json
from ablation.objective import COLUMN
from ablation.report.formats.csv import as_csv
from ablation.report.results import Results, read_runs
from ablation.report.study_report import report_of
from ablation.report.table import Table
from ablation.resolved import load_run, load_study
from ablation.training.history import History

OLDER = ROOT / "tests/data/study-v3"  # four runs trained by the workflow as it was before its files had one version
RUN = "A-r4-b2x1-fp32-s0-83e22a65"


@pytest.fixture
def older(tmp_path):
    """A copy, as it lay under ``results/``."""
    return Path(shutil.copytree(OLDER, tmp_path / "older"))


def tables_of(folder: Path) -> dict[str, str]:
    """The tables of the report on a study's folder, by name, as CSV, as if its objective had not been corrected since."""
    name, study = load_study(folder / "study.json")
    runs = read_runs(folder / "runs.parquet")
    now = {strategy: study.settings.objective(one.train.patterns) for strategy, one in study.strategies.items()}
    report = report_of(Results(study, runs.assign(**{COLUMN: runs["strategy"].map(now)})), name, folder)
    blocks = [block for section in report.sections for block in section.blocks]
    return {block.name: as_csv(block) for block in blocks if isinstance(block, Table)}


def test_an_older_study_reports_the_same_numbers():
    committed = {path.stem: path.read_text() for path in (OLDER / "tables").glob("*.csv")}
    assert tables_of(OLDER) == committed and len(committed) > 8


def test_the_runs_of_an_older_study_are_collected_as_they_were(older):
    again = collect(older / "plan.csv", older / "runs", ("fits",))
    again.to_parquet(older / "again.parquet", index=False)
    again, before = pd.read_parquet(older / "again.parquet"), pd.read_parquet(older / "runs.parquet")
    assert set(again[formats.KEY]) == {formats.SCHEMA} and set(again["outcome"]) == {"completed"}
    pd.testing.assert_frame_equal(again[list(before)], before)


def test_an_older_run_is_read_from_its_settings(older):
    run = load_run(None, str(older / "runs" / RUN / "run.yaml"))
    assert run.id == RUN and load_run(older / "study.json", RUN).training_view == run.training_view


def later(path: Path) -> None:
    """Make a file one of a workflow that is not written yet."""
    version = formats.SCHEMA + 1
    if path.suffix == ".parquet":
        pd.read_parquet(path).assign(schema=version).to_parquet(path)
    elif path.suffix == ".csv":
        pd.read_csv(path).assign(schema=version).to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": version}))
    else:
        path.write_text(f"schema: {version}\n{path.read_text()}")


READERS = {
    "study.json": lambda folder: load_study(folder / "study.json"),
    "runs.parquet": lambda folder: read_runs(folder / "runs.parquet"),
    "plan.csv": lambda folder: collect(folder / "plan.csv", folder / "runs", ("fits",)),
    f"runs/{RUN}/metrics.json": lambda folder: collect(folder / "plan.csv", folder / "runs", ("fits",)),
    f"runs/{RUN}/run.yaml": lambda folder: load_run(None, str(folder / "runs" / RUN / "run.yaml")),
}


@pytest.mark.parametrize("name", READERS)
def test_what_a_later_workflow_wrote_is_refused(older, name):
    later(older / name)
    with pytest.raises(UserError, match=r"written by a later version .*schema 5; this one knows up to 4.*update it"):
        READERS[name](older)


def test_tables_and_histories_say_their_version(tmp_path):
    write_csv(tmp_path / "table.csv", [{"a": 1}, {"b": 2}])
    write_csv(tmp_path / "empty.csv", [])
    assert (tmp_path / "table.csv").read_text() == "a,b,schema\n1,,4\n,2,4\n" and (tmp_path / "empty.csv").read_text() == "\n"
    history = History(tmp_path / "history.csv")
    history.append({"step": 1, "loss": 0.5})
    assert (tmp_path / "history.csv").read_text().splitlines() == ["step,loss,schema", "1,0.5,4"]


def test_a_history_that_an_older_workflow_began_goes_on(tmp_path):
    (tmp_path / "history.csv").write_text("step,loss\n1,0.5\n")
    history = History(tmp_path / "history.csv")
    history.append({"step": 2, "loss": 0.25})
    assert history.column("loss") == [0.5, 0.25] and History(tmp_path / "history.csv").column("step") == [1, 2]


def test_a_version_that_is_no_number_is_no_reason_to_refuse(tmp_path):
    write_json(tmp_path / "study.json", {"schema": None, **json.loads((OLDER / "study.json").read_text())})
    assert load_study(tmp_path / "study.json")[0] == "older"
