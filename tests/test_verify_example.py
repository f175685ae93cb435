"""The committed example, made elsewhere on another day: one of its runs again, and any number tampered with is found.

Bits are held against what this machine has made; what another has made, against the tolerance that is stated.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from verify_run import TABLES, verify
from workflow import copy_project, jobs, snakemake

from ablation.files import digest
from ablation.formats import SCHEMA
from ablation.manifest import read_manifest
from ablation.verify.again import DIFFERS, EQUAL, WITHIN, Verdict

EXAMPLE = "docs/example"
RUN, OTHER = "A-r4-b2x1-fp32-s0-83e22a65", "C-r4-b2x1-fp32-s0-d5e05ec0"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project, and in it one run of the example trained again: from photographs, by the workflow, on this machine."""
    folder = copy_project(tmp_path_factory.mktemp("clone") / "project")
    done = snakemake(folder, "verify", config=[f"reference={EXAMPLE}", f"runs={RUN}"])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert jobs(done)["train_run"] == jobs(done)["evaluate_base"] == 1
    return folder


@pytest.fixture
def reference(project, tmp_path) -> Path:
    """A copy of the example."""
    return shutil.copytree(project / EXAMPLE, tmp_path / "example")


@pytest.fixture
def made_here(project, tmp_path) -> Path:
    """The same study with the run as this machine has trained it; nothing was collected."""
    folder = tmp_path / "here"
    shutil.copytree(again(project) / "runs" / RUN, folder / "runs" / RUN)
    shutil.copy(project / EXAMPLE / "study.json", folder)
    return folder


@pytest.fixture
def made_elsewhere(reference) -> Path:
    """The example as if it was made on a processor that rounds otherwise than this one."""
    path = reference / "runs" / RUN / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "arithmetic": "0" * 16}))
    return reference


def again(project: Path) -> Path:
    return project / "results/demo/vggt-eth3d/verified"


def test_a_run_of_the_example_trained_again_is_equal_or_within_tolerance(project, reference):
    """Where it is not equal, it says what was not the same: the processor that it was made on, or how that rounds."""
    found = verify(reference, again(project), RUN)
    assert set(found) == {RUN, TABLES} and found[TABLES].word == EQUAL
    verdict = found[RUN]
    elsewhere = any(reason.startswith(("arithmetic: ", "cpu: ")) for reason in verdict.reasons)
    assert verdict.word == EQUAL or (verdict.word == WITHIN and elsewhere), verdict
    assert not (project / "results/demo/vggt-eth3d/study.json").exists(), "the place of one's own study is left alone"


def test_what_this_machine_has_trained_is_held_to_the_bit(project, made_here):
    found = verify(made_here, again(project), RUN)
    assert set(found) == {RUN} and found[RUN].word == EQUAL and not found[RUN].reasons


def test_the_example_is_whole(reference):
    """Each run's files are there, and small; what was trained is known by its hash."""
    runs = sorted(path.name for path in (reference / "runs").iterdir())
    assert len(runs) == 12
    for run in runs:
        assert {path.name for path in (reference / "runs" / run).iterdir()} == {
            "run.yaml", "history.csv", "metrics.json", "training.json", "manifest.json",
        }  # fmt: skip
        manifest = read_manifest(reference / "runs" / run / "manifest.json")
        assert manifest["schema"] == SCHEMA and manifest["code"]["changed"] is False and manifest["deterministic"]
        assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "history.csv"} == set(manifest["files"])


def another_digit(text: str, after: str) -> str:
    """``text`` with another digit in the first number that follows ``after``: the last, or one that a double still tells."""
    start = text.index(after) + len(after)
    end = next(i for i in range(start + 1, len(text)) if text[i] in ",\n} ")
    place = end - 1 if end - start < 12 else start + 11
    return text[:place] + ("8" if text[place] == "7" else "7") + text[place + 1 :]


def in_text(name: str, after: str) -> Callable[[Path], None]:
    def tamper(reference: Path) -> None:
        path = reference / name
        path.write_text(another_digit(path.read_text(), after))

    return tamper


def in_table(column: str) -> Callable[[Path], None]:
    def tamper(reference: Path) -> None:
        table = pd.read_parquet(reference / "runs.parquet")
        place = table.index[table["run"] == OTHER][0]
        table.loc[place, column] = table.loc[place, column] * (1 + 1e-12)
        table.to_parquet(reference / "runs.parquet", index=False)

    return tamper


CASES = {
    "a metric": (in_text(f"runs/{OTHER}/metrics.json", '"metrics": {\n  "depth_mae": '), OTHER, "metric.depth_mae"),
    "an item": (
        in_text(f"runs/{OTHER}/metrics.json", '"item": "motorcycle",\n   "depth_mae": '),
        OTHER,
        "items.0.depth_mae",
    ),
    "a time": (in_text(f"runs/{OTHER}/metrics.json", '"step_median_s": '), OTHER, "time"),
    "the record of training": (in_text(f"runs/{OTHER}/training.json", '"final_loss": '), OTHER, "final_loss"),
    "a row of the history": (in_text(f"runs/{OTHER}/history.csv", "\n7,"), OTHER, "history.csv"),
    "a time of the manifest": (in_text(f"runs/{OTHER}/manifest.json", '"seconds": '), OTHER, "origin.times.seconds"),
    "threads of the manifest": (
        in_text(f"runs/{OTHER}/manifest.json", '"device": {\n  "type": "cpu",\n  "threads": '),
        OTHER,
        "origin.device.threads",
    ),
    "a setting of the manifest": (in_text(f"runs/{OTHER}/manifest.json", '"weight_decay": '), OTHER, "training.weight_decay"),
    "a setting": (in_text(f"runs/{OTHER}/run.yaml", "weight_decay: "), OTHER, "run.yaml"),
    "a collected metric": (in_table("metric.depth_mae"), OTHER, "metric.depth_mae"),
    "a prediction": (in_table("predicted_gib"), OTHER, "predicted_gib"),
    "the plan": (in_text("plan.csv", f"\n{OTHER},C,4,2,1,fp32,1,0,2,"), OTHER, "total_params"),
    "a table": (in_text("tables/metrics.csv", "\nA,4,"), TABLES, "tables/metrics.csv"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_digit_that_was_tampered_with_is_found_and_named(project, reference, case):
    tamper, run, said = CASES[case]
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    tamper(reference)
    assert sum(path.read_bytes() != content for path, content in before.items()) == 1
    found = verify(reference, again(project), RUN)
    wrong = {name: in_words(verdict) for name, verdict in found.items()}
    assert found[run].word == DIFFERS and said in wrong[run], wrong


def in_words(verdict: Verdict) -> str:
    return " ".join(f"{one.what}: {one.said}" for one in verdict.findings if one.said)


def test_a_tampered_row_of_a_history_is_found_by_training_again(project, made_here):
    """Its last digit, which the machine that has made it tells; the hash of the file was tampered with as well."""
    in_text(f"runs/{RUN}/history.csv", "\n7,")(made_here)
    say_hash(made_here, "history.csv", digest(made_here / "runs" / RUN / "history.csv"))
    verdict = verify(made_here, again(project), RUN)[RUN]
    assert verdict.word == DIFFERS and in_words(verdict).startswith("losses: first at step 7, epoch: "), verdict


@pytest.mark.parametrize("made", ["reference", "made_here"])
def test_a_row_of_a_history_that_was_tampered_with_much_is_found_on_any_machine(project, made, request):
    """Beside rounding, which parts all rows from the first on: it is named as the furthest."""
    folder = request.getfixturevalue(made)
    path = folder / "runs" / RUN / "history.csv"
    head, *rows = [line.split(",") for line in path.read_text().splitlines()]
    rows[6][head.index("loss")] = "17.5"
    path.write_text("".join(",".join(row) + "\n" for row in (head, *rows)))
    say_hash(folder, "history.csv", digest(path))
    verdict = verify(folder, again(project), RUN)[RUN]
    (losses,) = [one for one in verdict.findings if one.what == "losses"]
    assert verdict.word == DIFFERS and losses.said.split("; furthest ")[-1].removeprefix("first ").startswith(
        "at step 7, loss: 17.5"
    )


@pytest.mark.parametrize(("made", "word"), [("made_elsewhere", WITHIN), ("made_here", DIFFERS)])
def test_a_hash_that_was_tampered_with_is_found(project, made, word, request):
    """Of what was trained: told wherever it was made, and no excuse where bits are expected."""
    folder = request.getfixturevalue(made)
    say_hash(folder, "adapter/adapter_model.safetensors", "0" * 64)
    verdict = verify(folder, again(project), RUN)[RUN]
    assert "adapter/adapter_model.safetensors not the same bytes" in [one.said for one in verdict.findings]
    assert verdict.word == word


def say_hash(folder: Path, name: str, sha: str) -> None:
    """Let the run's manifest say that a file has this hash."""
    path = folder / "runs" / RUN / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = sha
    path.write_text(json.dumps(manifest))
