"""The workflow on a real SLURM, booted on this machine: several nodes, GPU resources, accounting."""

import re
import signal
import subprocess

import pandas as pd
import pytest
from cluster import Snakemake, accounting, booted, queue, wait_until
from workflow import copy_project

pytestmark = pytest.mark.slurm

# The demo study with fewer scenes, runs and steps, in the file where a user would write that.
FEWER = """\
studies: [vggt-eth3d]
scale: demo
data: {scenes: [library, motorcycle], split: {test: [motorcycle]}}
training: {steps: 20}
sweep: {rank: 4, seed: 0}
baseline: {rank: 4}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with three nodes of two (pretended) RTX 4090."""
    with booted(tmp_path_factory.mktemp("slurm"), nodes=3, gpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("clone") / "project")
    (project / "config/config.yaml").write_text(FEWER)
    return project


@pytest.fixture(scope="module")
def demo(project):
    """The literal command, begun: what it waits for SLURM is time for the test of the probes, which it must not mind."""
    return Snakemake(project)


# --- probes: submitit's job arrays ------------------------------------------------------------------------------------


@pytest.fixture
def scavenging(cluster, tmp_path):
    """A project whose profile names another partition than the cluster's default, and a model of GPU."""
    project = copy_project(tmp_path / "project")
    profile = project / "profiles/slurm/config.yaml"
    text = profile.read_text()
    for old, new in (("slurm_partition: gpu", "slurm_partition: scavenge"), ("# gpu_model: rtx4090", "gpu_model: rtx4090")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    profile.write_text(text)
    return project


THERE = "PENDING,RUNNING,SUSPENDED,COMPLETING"


def tasks(state: str) -> list[str]:
    """Ids of the probes in the queue, each task of an array with its own."""
    done = subprocess.run(["squeue", "-h", "-r", "-n", "probe", "-t", state, "-o", "%i"], capture_output=True, text=True)
    return done.stdout.split()


def test_probes_are_arrays_and_what_is_interrupted_or_cancelled_is_made_up_for(scavenging, demo):
    """One cell at a time: interrupted after the first; then, of more, one cancelled while it runs and one in the queue."""
    results = scavenging / "results/demo/vggt-eth3d"
    probe = ["probe", "--jobs", "1"]
    config = ["sweep={strategy: [A, B], rank: 4, seed: [0, 1]}", "baseline={rank: 4}"]
    more = ["sweep={strategy: [A, B], rank: [4, 8], seed: [0, 1]}", "baseline={rank: 4}"]

    def records() -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (results / "probe").glob("*-*.json")}

    snakemake = Snakemake(scavenging, *probe, config=config)
    wait_until(records, "the first record")
    snakemake.signal(signal.SIGINT)
    snakemake.process.wait(timeout=60)
    wait_until(lambda: not tasks(THERE), "no probe in the queue after an interrupt", 60)
    first = records()
    assert len(first) == 1 and not (results / "probe.csv").exists()

    snakemake = Snakemake(scavenging, *probe, config=more)

    def begun() -> list[str]:
        return [task for task in tasks("RUNNING") if list(results.glob(f"**/{task}_0_log.out"))]

    running = wait_until(lambda: begun() if tasks("PENDING") else None, "a task that runs before others")
    subprocess.run(["scancel", running[0], tasks("PENDING")[-1]], check=True)
    output = snakemake.end(limit=400)
    table = pd.read_csv(results / "probe.csv")
    assert table["outcome"].value_counts().to_dict() == {"completed": 2, "failed": 2} and "2 failed" in output
    reasons = sorted(table["reason"].dropna())
    assert reasons[0].startswith("SLURM: CANCELLED"), reasons
    assert reasons[1] == "SLURM: left the queue unrun; cancelled?", reasons
    second = records()
    assert {name: second[name] for name in first} == first and len(second) == 2

    Snakemake(scavenging, *probe, config=more).end(limit=300)
    assert set(pd.read_csv(results / "probe.csv")["outcome"]) == {"completed"}
    assert {name: time_ for name, time_ in records().items() if name in second} == second
    jobs = [job for job in accounting() if job["JobName"] == "probe"]
    assert all(re.match(r"\d+_[\d\[]", job["JobID"]) for job in jobs)  # those cancelled before they were one by one are 7_[0-1]
    assert {job["Partition"] for job in jobs} == {"scavenge"}
    assert all("gres/gpu:rtx4090=1" in job["AllocTRES"] for job in jobs if job["State"] == "COMPLETED")
    assert tasks(THERE) == []


# --- the demo ----------------------------------------------------------------------------------------------------------


def test_the_demo_study_by_its_literal_command(demo, project):
    demo.end(limit=900)
    results = project / "results/demo/vggt-eth3d"
    table = pd.read_parquet(results / "runs.parquet")
    assert len(table) == 3 and set(table["outcome"]) == {"completed"} and (results / "report.html").is_file()
    training = [job for job in accounting() if job["Comment"].startswith("rule_train_run")]
    assert {re.search(r"vggt-eth3d_(.+)$", job["Comment"])[1] for job in training} == set(table["run"])
    for job in training:
        assert job["State"] == "COMPLETED"
        assert re.fullmatch(r"gpu0[1-3]", job["NodeList"]), "a job must not be split over nodes"
        assert "gres/gpu=1" in job["AllocTRES"].split(",")
    assert len({job["NodeList"] for job in training}) > 1
    assert not any("gres/gpu" in job["AllocTRES"] for job in accounting() if job["Comment"].startswith("rule_prepare_part"))
    assert queue() == []
