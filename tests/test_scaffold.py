"""`make new-study` and `make new-system`: what they write is whole, passes its tests, and runs to a report."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from workflow import copy_project, snakemake

from ablation.errors import UserError
from ablation.scaffold import new_study, new_system, registered, study_text
from ablation.study import load_study
from ablation.systems import SYSTEMS

STUDIES = sorted((ROOT / "config/studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with the system ``toy`` and, of it and of vggt, the studies ``ours`` and ``mine``."""
    copy = copy_project(tmp_path_factory.mktemp("clone") / "project")
    program("new_system.py", "--name", "toy", cwd=copy)
    program("new_study.py", "--name", "ours", "--system", "toy", cwd=copy)
    program("new_study.py", "--name", "mine", "--system", "vggt", cwd=copy)
    return copy


def program(name: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, f"scripts/{name}", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_written_passes_its_own_tests(project):
    tests = ["tests/test_toy_system.py", "tests/test_study_mine.py", "tests/test_study_ours.py"]
    done = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "## System `toy`" in (project / "docs/settings.md").read_text()
    assert '"toy.Data"' in (project / "config/schemas/study.json").read_text()


def test_a_new_study_is_planned_and_a_new_system_runs_to_its_report(project):
    assert snakemake(project, "plan", "-n", config=["studies=mine", "scale=demo"]).returncode == 0
    done = snakemake(project, config=["studies=toy", "scale=demo", "training={steps: 4, preview_every: 2}"])
    assert done.returncode == 0, done.stderr[-3000:]
    results = project / "results/demo/toy"
    table = pd.read_parquet(results / "runs.parquet")
    assert len(table) == 4 and set(table["outcome"]) == {"completed"} and set(table["verdict"]) == {"fits"}
    assert (table["metric.error"] < table["before.error"]).any() and "Removing noise" in (results / "report.html").read_text()


@pytest.mark.parametrize("example", STUDIES, ids=lambda path: path.stem)
def test_every_example_makes_a_study_that_is_whole_and_claims_nothing(example, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(study_text("mine", example))
    for scale in ("demo", "full"):
        study, old = (load_study(each, {"scale": scale}) for each in (path, example))
        assert study.title == "mine" and study.claims is None
        assert study.model_dump(exclude={"title", "claims"}) == old.model_dump(exclude={"title", "claims"})
    assert "#" in path.read_text().split("system:")[1]  # its comments


@pytest.mark.parametrize("name", ["", "../mine", "a b", "-n", "mine;touch pwned"])
def test_names_that_cannot_be_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"^NAME=.* cannot be the name of a study; take letters") as refused:
        new_study(name, "vggt", tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"^NAME=.* cannot be the name of a system; take small letters"):
        new_system(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(project):
    before = {path: path.read_bytes() for path in (project / "config/studies").iterdir()}
    with pytest.raises(UserError, match=r"^config/studies/mine\.yaml is there already; remove it, or take another NAME$"):
        new_study("mine", "dit", project)
    with pytest.raises(UserError, match=r"^NAME='toy': scripts/ablation/systems has that already"):
        new_system("toy", project)
    with pytest.raises(UserError, match=r"^NAME='class' cannot be"):
        new_system("class", project)
    with pytest.raises(UserError, match=r"^SYSTEM='vgt': there is no such system; did you mean vggt\?"):
        new_study("other", "vgt", project)
    assert {path: path.read_bytes() for path in (project / "config/studies").iterdir()} == before


def test_the_registry_keeps_its_systems():
    text = (ROOT / "scripts/ablation/systems/__init__.py").read_text()
    (line,) = set(registered(text, "toy").splitlines()) - set(text.splitlines())
    assert all(f'"{name}"' in line for name in [*SYSTEMS, "toy"])
    assert registered(registered(text, "toy"), "toy") == registered(text, "toy")
