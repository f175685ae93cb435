"""Results of an objective that was corrected since are trained again, shown as such, and count in no verdict."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import STUDY
from report_study import write_study

from ablation.changes import Change
from ablation.claims.model import Claim
from ablation.claims.verdicts import NOT_COMPARABLE, Judge
from ablation.files import digest, write_json
from ablation.hardware import load_cards
from ablation.manifest import manifest_of, settings_hash, settings_of
from ablation.objective import COLUMN, OTHER, marked
from ablation.outlook import outlook
from ablation.report.comparisons import differences
from ablation.report.results import Results
from ablation.report.words import summary
from ablation.seal import FILE
from ablation.standing import AGAIN, FINISHED, InputFolders, standing_of
from ablation.state import State
from ablation.study import load_study
from ablation.sweep import expand

EARLIER = {"A": FINISHED, "B": AGAIN, "C": AGAIN}  # the camera's loss reaches no weight that A trains


@pytest.fixture
def folders(tmp_path, monkeypatch) -> InputFolders:
    monkeypatch.chdir(tmp_path)
    return InputFolders(tmp_path / "data", tmp_path / "hashes")


@pytest.fixture(params=EARLIER)
def run(request, demo_study, folders):
    """A run of each strategy, whose weights and data are there."""
    run = next(run for run in expand(demo_study, "s") if run.axes["strategy"] == request.param)
    for path in map(Path, run.settings.weight_files().values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")
    for part in run.settings.parts():
        write_json(folders.data / part.id / FILE, {"part": part.name})
    return run


def of_an_earlier_version(run):
    """What it was told, as a version wrote it that knew of one objective."""
    return {name: value for name, value in run.training_view.items() if name != "objective"}


def test_a_result_of_another_objective_is_trained_again_and_the_start_says_why(run, folders, tmp_path):
    data = {part.id: digest(folders.data / part.id / FILE) for part in run.settings.parts()}
    told = {"settings": settings_of(run), "settings_sha256": settings_hash(of_an_earlier_version(run))}
    folder = tmp_path / "run"
    write_json(folder / "manifest.json", {**told, "inputs": {"weights": {}, "data": data}})
    write_json(folder / "metrics.json", {})
    found = standing_of(run, folder, folders)
    objective = [change for change in found.changes if "objective" in change.name]
    if EARLIER[run.axes["strategy"]] == AGAIN:
        assert found.state == AGAIN and objective == [Change("training objective (version)", 1, 2)]
        assert "training objective (version) 1 -> 2" in outlook(
            "s", {run.id: run}, {run.id: "fits"}, ["fits"], lambda run: found
        )
    else:
        assert objective == []


def test_a_checkpoint_of_another_objective_is_not_gone_on_with(run, folders, tmp_path):
    folder = tmp_path / "run"
    State(folder).take("f" * 64, of_an_earlier_version(run), {"weights": {}, "data": {}})
    (folder / "state/step-00000040").mkdir()
    changed = [change.name for change in standing_of(run, folder, folders).changes]
    assert ("training objective (version)" in changed) == (EARLIER[run.axes["strategy"]] == AGAIN)


def test_a_report_shows_them_and_concludes_nothing_from_them(tmp_path):
    study = load_study(STUDY)
    _, results = write_study(tmp_path, study)
    earlier = Results(study, results.runs.drop(columns=COLUMN))
    ended = earlier.runs.groupby("strategy")["outcome"].unique()
    assert {name: list(words) for name, words in ended.items()} == {"A": ["completed"], "B": [OTHER], "C": [OTHER]}
    assert {cell.strategy for cell in earlier.cells if cell.estimate("metric.depth_mae")} == {"A"}
    assert OTHER in " ".join(summary(earlier)).lower()
    verdicts = {earlier.cells[one.cell].strategy: one.verdict for one in differences(earlier, study.metrics()[0])}
    assert verdicts["B"] == verdicts["C"] == OTHER
    assert earlier.cells[-1].estimate("memory.peak_allocated_gib"), "what it needed is what it needs"
    assert marked(study, results.runs).equals(results.runs), "nothing is said of those that are as they should be"


def test_no_claim_is_judged_by_them(tmp_path):
    study = load_study(STUDY, {"scale": "full", "sweep": {"strategy": "B", "rank": 16, "seed": 0}})
    (run, *_) = expand(study, "s")
    row = {"run": run.id, "strategy": "B", "outcome": "completed", "metric.depth_mae": 0.3, "before.depth_mae": 0.4}
    claim = Claim(says="it helps", source="a paper", quantity="depth_mae", against="pretrained", at_most=1.0)
    for objective, judged in ((2, True), (1, False)):
        table = marked(study, pd.DataFrame([{**row, COLUMN: objective}]))
        rows = {row["run"]: row for row in table.to_dict("records")}
        judge = Judge(study, [run], rows, {}, load_cards(STUDY.parent.parent / "hardware"))
        assert (judge(claim).verdict != NOT_COMPARABLE) == judged


def test_a_manifest_says_which_it_was(run, folders, tmp_path):
    surroundings = {"device": {"type": "cpu"}}
    manifest = manifest_of(run, surroundings, {"weights": {}, "data": {}}, [], {})
    assert manifest["objective"] == (1 if run.axes["strategy"] == "A" else 2)
    assert manifest["settings_sha256"] == settings_hash(run.training_view)
    assert (settings_hash(of_an_earlier_version(run)) == manifest["settings_sha256"]) == (run.axes["strategy"] == "A")


def test_a_report_says_where_its_runs_had_different_learning_rates(tmp_path):
    """A is not trained again for them; a mean over seeds of both says so."""
    study = load_study(STUDY, {"sweep": {"strategy": "A"}})
    _, results = write_study(tmp_path, study)
    assert "earlier version" not in " ".join(summary(results))
    first = results.runs["seed"] == 0
    mixed = Results(study, results.runs.assign(**{COLUMN: results.runs[COLUMN].mask(first)}))
    assert f"{first.sum()} of {len(first)} runs were trained by an earlier version" in " ".join(summary(mixed))
    before = Results(study, results.runs.drop(columns=COLUMN))
    assert "earlier version" not in " ".join(summary(before)), "all alike"
