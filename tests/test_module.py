"""The workflow used from another folder: as a module of a workflow there, by path and by github(...), or by its Snakefile."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from workflow import copy_project, jobs

from ablation.yamlfile import dump_yaml, load_yaml

MODULE = """
configfile: "config/config.yaml"


onstart:
    print("handler of the user")


module ablation:
    snakefile: {snakefile}
    config: config["ablation"]


use rule * from ablation as ablation_*


rule all:
    default_target: True
    input:
        rules.ablation_all.input,
"""
HOSTED = 'github("owner/ablation", path="Snakefile", tag="v1")'
TRIGGERS = ["--rerun-triggers", "mtime", "params", "input", "software-env"]  # as the profiles


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


@pytest.fixture(scope="module")
def hosted(project, tmp_path_factory) -> dict[str, str]:
    """An environment in which git takes github.com/owner/ablation from a folder of this machine, with the project at tag v1."""
    hosts = tmp_path_factory.mktemp("hosts")
    person = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*person, "commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(project), str(hosts / "owner/ablation")], check=True)
    redirect = {"KEY_0": f"url.file://{hosts}/.insteadOf", "VALUE_0": "https://github.com/", "COUNT": "1"}
    cache = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    return {**os.environ, **cache, **{f"GIT_CONFIG_{name}": value for name, value in redirect.items()}}


@pytest.fixture(scope="module")
def user(project, tmp_path_factory) -> Path:
    """Another workflow's folder, with a study, a card and claims of its own."""
    folder = tmp_path_factory.mktemp("user") / "paper"
    (folder / "config/studies").mkdir(parents=True)
    small = {
        "data": {"scenes": ["library", "motorcycle"], "split": {"test": ["motorcycle"]}},
        "training": {"steps": 3},
        "sweep": {"strategy": "A", "rank": 4, "seed": 0},
        "hardware": "ours",
        "claims": "ours",
        "title": "Ours",
    }
    study = load_yaml(project / "config/studies/vggt-eth3d.yaml")
    study["scales"]["demo"] |= {"training": {**study["scales"]["demo"]["training"], **small.pop("training")}}
    study["scales"]["demo"]["data"] |= small.pop("data")
    study["scales"]["demo"]["sweep"] |= small.pop("sweep")
    (folder / "config/studies/mine.yaml").write_text(dump_yaml(study | small))
    card = {**load_yaml(project / "config/hardware/rtx4090.yaml"), "name": "Our card"}
    claim = {"says": "it fits", "outcome": "fits", "card": "ours"}
    for name, content in (("hardware", card), ("claims", {"source": "us", "claims": {"fit": claim}})):
        (folder / "config" / name).mkdir()
        (folder / "config" / name / "ours.yaml").write_text(dump_yaml(content))
    (folder / "config/config.yaml").write_text(dump_yaml({"ablation": {"studies": ["mine"], "scale": "demo"}}))
    return folder


def snakemake(folder: Path, *arguments: str, env=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments, *TRIGGERS, "-c2"]
    env = {**(env or os.environ), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600, env=env)


def used_by(folder: Path, snakefile: str) -> None:
    (folder / "Snakefile").write_text(MODULE.format(snakefile=snakefile))


def test_a_module_from_a_git_host_runs_to_a_report_and_elsewhere_has_nothing_more_to_do(user, hosted, project):
    used_by(user, HOSTED)
    done = snakemake(user, env=hosted)
    assert done.returncode == 0, done.stderr[-3000:]
    results = user / "results/demo/mine"
    (row,) = pd.read_parquet(results / "runs.parquet").to_dict("records")
    assert row["outcome"] == "completed" and "Ours" in (results / "report.html").read_text()
    assert set(pd.read_csv(results / "claims.csv")["verdict"]) <= {"confirmed", "not comparable"}
    assert "ours" in set(pd.read_csv(results / "cards.csv")["card"]) > {"ours"}  # and those of the workflow
    assert "ablation_train_run" in jobs(done) or "Rule: ablation_train_run" in done.stderr
    assert "handler of the user" in done.stdout
    commit = subprocess.run(["git", "-C", str(project), "rev-parse", "v1"], capture_output=True, text=True, check=True).stdout
    assert commit.strip() in (results / "runs" / row["run"] / "manifest.json").read_text()
    assert hosted["XDG_CACHE_HOME"] not in (results / "study.json").read_text()

    used_by(user, repr(str(project / "Snakefile")))
    again = snakemake(user)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


def test_what_is_wrong_is_one_line_in_a_module_as_well(user, hosted, project):
    used_by(user, repr(os.path.relpath(project / "Snakefile", user)))
    done = snakemake(user, "-n", "--config", "ablation={studies: mne}")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert re.search(r"^error: studies: there is no study 'mne'; did you mean mine\?$", done.stderr, re.MULTILINE)


def test_single_files_are_refused(user, project):
    """Read file by file from a web server, there are rules and no programs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(project)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    used_by(user, f"'http://127.0.0.1:{server.server_port}/Snakefile'")
    done = snakemake(user, "-n")
    server.shutdown()
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert re.search(r"^error: single files of the workflow are not enough; name it with github", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("how", ["snakefile", "directory"])
def test_its_snakefile_runs_in_another_folder(project, tmp_path, how):
    place = ["-s", str(project / "Snakefile")] if how == "snakefile" else ["--directory", str(tmp_path)]
    done = snakemake(tmp_path if how == "snakefile" else project, "-n", *place)
    assert done.returncode == 0 and jobs(done)["plan_study"] == 1, done.stderr[-2000:]
    assert (tmp_path / "resources/vggt-demo.safetensors").is_file() and not (tmp_path / "results").exists()
    assert [path.name for path in (project / "results").iterdir()] == ["traces"]  # as it was copied
