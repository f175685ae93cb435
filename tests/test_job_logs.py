"""The logs of a job's attempts: each stays, and a failure shows its own."""

import re

import pytest
from conftest import STUDY
from workflow import copy_project, snakemake

from ablation.study import load_study
from ablation.yamlfile import parse_yaml

DATA = "{scenes: [library], split: {by: image, train: 0.7, test: []}}"
FAILS = 'import os, sys\nos.write(2, b"NCCL WARN of %d\\n" % os.getpid())\nsys.exit("ValueError: no luck")\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project, where nothing can be prepared."""
    project = copy_project(tmp_path_factory.mktemp("clone") / "project")
    (project / "scripts/prepare_part.py").write_text(FAILS)
    return project


def test_each_attempt_leaves_its_log_and_a_failure_shows_its_own(project):
    leaves = load_study(STUDY, {"data": parse_yaml(DATA)}).parts()
    part = next(part for leaf in leaves for part in leaf.closure() if not part.needs)
    config = ["studies=vggt-eth3d", "scale=demo", f"data={DATA}"]
    done = snakemake(project, f"results/demo/data/{part.id}", "--retries", "2", config=config)
    assert done.returncode == 1
    (log,) = (project / "results/demo/logs/prepare").glob("*.log")
    attempts = sorted((log.parent / "attempts").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    texts = [path.read_text() for path in attempts]
    assert len(texts) == len(set(texts)) == 3 and log.read_text() == texts[-1]
    assert all(re.fullmatch(r"NCCL WARN of \d+\nValueError: no luck\n", text) for text in texts)
    assert all(re.fullmatch(rf"{log.stem}\.\d{{4}}-\d\d-\d\dT\d{{6}}Z\.\d+\.log", path.name) for path in attempts)
    shown = re.findall(r"NCCL WARN of \d+", done.stdout + done.stderr)
    assert shown == [text.splitlines()[0] for text in texts]
