"""What the Snakemake workflow catalog asks for, and what it says of the workflow, hold."""

import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from workflow import copy_project

USAGE = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]


def dry_run(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "-n", "-c1", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_the_files_that_it_looks_for_are_there():
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme and list((ROOT / "rules").glob("*.smk"))
    assert all((ROOT / name).read_text() for name in ("Snakefile", "workflow/Snakefile", "config/config.yaml"))
    assert "config/studies/" in (ROOT / "config/README.md").read_text()


def test_its_file_says_what_is_so():
    assert set(USAGE) == {"mandatory-flags", "software-stack-deployment", "report"}
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert USAGE["software-stack-deployment"]["conda"] is ("conda:" in rules)
    assert USAGE["software-stack-deployment"]["apptainer"] is ("container:" in rules)
    assert USAGE["report"] is ("report(" in rules)


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_the_flags_that_it_names_run_the_workflow_where_it_is_deployed(tmp_path, snakefile):
    """As snakedeploy does: the folders config and profiles are copied, the rules stay where they are."""
    project, here = copy_project(tmp_path / "project"), tmp_path / "here"
    for name in ("config", "profiles"):
        shutil.copytree(project / name, here / name)
    (here / "workflow").mkdir()
    (here / "workflow/Snakefile").write_text(
        'configfile: "config/config.yaml"\n'
        f'module ablation:\n    snakefile: "{project / snakefile}"\n    config: config\n'
        "use rule * from ablation\n"
    )
    done = dry_run(here, *shlex.split(USAGE["mandatory-flags"]["flags"]))
    assert done.returncode == 0 and "write_report" in done.stdout + done.stderr, done.stderr[-2000:]
    assert sorted(path.name for path in here.iterdir() if path.name[0] != ".") == [
        "config",
        "profiles",
        "resources",
        "workflow",
    ]
