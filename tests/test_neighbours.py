"""Others on a job's GPU: an error of memory beside them is no result, and what is measured beside them is marked."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import launch
import pytest
import torch
from conftest import ROOT
from faults import survived
from ready import Program
from small_vggt import job, prepare, run_of
from test_faults import longer, outcome
from test_runs_per_job import command, studied

from ablation import gpus, neighbours, nvml
from ablation.attempts import Journal
from ablation.kin import WATCHER
from ablation.neighbours import CardShared, Neighbours
from ablation.probe import measure as probing
from ablation.systems.vggt.system import System
from ablation.vram.budget import Budget
from ablation.vram.measure import GIB, CpuMeter
from ablation.vram.oom import beyond_budget, spoiled
from ablation.yamlfile import dump_yaml

PROGRAM = ROOT / "tests/neighboured.py"


@pytest.fixture
def root(scene_root, vggt, tmp_path, monkeypatch):
    """A machine with a pretended GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "leases"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return prepare(scene_root, vggt, tmp_path)


def ends(folder):
    return [(event["how"], event["packed"]) for event in Journal(folder).events() if event["event"] == "end"]


# --- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault
def test_a_run_that_a_neighbour_left_no_room_is_taken_up_again(root, tiny, monkeypatch):
    """From its checkpoint, and ends as if it had been alone."""
    run, begun = run_of(root, tiny, dropout=0.2), time.monotonic()
    monkeypatch.setenv("NEIGHBOUR", "first")
    done = launch.train(*job(run, root, "run"), program=PROGRAM)
    assert done.returncode == 0, done.stderr
    said = "the card was shared: 5.0 GiB of GPU 0 were held by process 1 (jupyter)"
    assert said in done.stderr and "resuming after step 2" in done.stderr
    assert ends(root / "run") == [("failed", 2), ("completed", 1)]
    assert launch.train(*job(run, root, "alone")).returncode == 0
    assert outcome(root / "run") == outcome(root / "alone") and "packed" not in launch.record(root / "run")["time"]
    row = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "bit for bit"}
    survived("OOM beside a neighbour", "local", seen=f"“{said}”; once more from the checkpoint, alone", **row)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_a_neighbour_leaves_no_room_fails_the_second_time_and_is_no_oom(root, tiny, monkeypatch, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    run = longer(run_of(root, tiny, gpus=count, accumulation=2 // count), steps=8)
    monkeypatch.setenv("NEIGHBOUR", "always")
    done = launch.train(*job(run, root, "run"), program=PROGRAM)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: the card was shared: 5.0 GiB of GPU ")
    assert ends(root / "run") == [("failed", 2)] * 2
    assert not (root / "run/training.json").exists() and not (root / "run/state/result.json").exists()


@pytest.mark.parametrize(("kind", "packed"), [("none", None), ("large", 2)])
def test_what_does_not_fit_an_empty_card_is_a_result(root, tiny, monkeypatch, kind, packed):
    monkeypatch.setenv("NEIGHBOUR", kind)
    done = launch.train(*job(run_of(root, tiny), root, "run"), program=PROGRAM)
    record = launch.record(root / "run")
    assert done.returncode == 0 and record["outcome"] == "oom", done.stderr
    assert record["time"].get("packed") == packed and ends(root / "run") == [("oom", packed or 1)]


def test_a_run_in_a_job_of_several_is_taken_up_again_and_the_others_follow(root, tiny, monkeypatch):
    monkeypatch.setenv("NEIGHBOUR", "first")
    (root / "base.json").write_text(json.dumps({"metrics": {}, "items": []}))
    first, second, _ = studied(root / "study", tiny, 2)
    program = Program([PROGRAM, *command(first, root / "study")[1:]], {**os.environ, "OMP_NUM_THREADS": "1"})
    _, said = program.communicate(timeout=300)
    assert program.returncode == 0 and said.count("the card was shared: 5.0 GiB") == 1, said
    assert [ends(root / "study/runs" / run.id) for run in (first, second)] == [
        [("failed", 2), ("completed", 1)],
        [("completed", 1)],
    ]


def stay():
    """A neighbour that leaves room enough."""
    nvml.processes = lambda uuid: {os.getpid(): 2 * GIB, 1: 5 * GIB}


def test_the_time_of_a_run_beside_a_neighbour_is_marked(root, tiny):
    done = launch.train(*job(run_of(root, tiny), root, "run"), before=stay)
    assert done.returncode == 0 and launch.record(root / "run")["time"]["packed"] == 2, done.stderr
    assert ends(root / "run") == [("completed", 2)]


@pytest.mark.fault
def test_two_runs_in_one_allocation_are_on_different_gpus(root, tiny, monkeypatch):
    """As the local profile starts them where srun or salloc has given it several GPUs."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    begun = time.monotonic()
    runs = [longer(run_of(root, tiny, seed=seed), steps=16) for seed in (0, 1)]
    jobs = [launch.start(*job(run, root, f"run-{i}")) for i, run in enumerate(runs)]
    for one in jobs:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
    events = [Journal(root / f"run-{i}").events() for i in (0, 1)]
    assert max(found[0]["time"] for found in events) < min(found[-1]["time"] for found in events), "not at the same time"
    assert sorted(found[0]["gpus"] for found in events) == [["0"], ["1"]]
    seen = "each run's log and journal name a GPU of its own"
    row = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "each alone on its card"}
    survived("allocation with several GPUs, local profile in it", "local", seen=seen, **row)


# --- probes ------------------------------------------------------------------------------------------------------------


def test_a_probe_beside_a_neighbour_fails_the_second_time_and_is_no_oom(root, tiny, monkeypatch):
    (root / "run.yaml").write_text(dump_yaml(run_of(root, tiny).training_view))
    more = ["--cards", ROOT / "config/hardware", "--device", "cpu", "--output", root / "probe.json"]
    command = [sys.executable, PROGRAM, "--run", root / "run.yaml", *more]
    for kind, status in (("always", 2), ("none", 0)):
        environment = {**os.environ, "NEIGHBOUR": kind, "PROGRAM": "probe_cell.py"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
        assert done.returncode == status, done.stderr
        assert done.stderr.count("the card was shared: 5.0 GiB") == (2 if status else 0)
        assert (root / "probe.json").exists() == (not status)
    assert json.loads((root / "probe.json").read_text())["outcome"] == "oom"


# --- who is a neighbour --------------------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch):
    """What NVML tells of a card: its processes, and what is in use on it (GiB)."""
    told = SimpleNamespace(processes={}, used=None)
    size = lambda gib: None if gib is None else int(gib * GIB)  # noqa: E731
    monkeypatch.setattr(nvml, "processes", lambda uuid: {number: size(gib) for number, gib in told.processes.items()})
    monkeypatch.setattr(nvml, "device_used_bytes", lambda uuid: size(told.used))
    return told


def test_a_process_of_others_is_a_neighbour_and_those_of_this_job_are_not(card, monkeypatch):
    beside, me = Neighbours(["0"]), os.getpid()
    child = subprocess.Popen(["sleep", "60"])
    try:
        for processes, size in (
            ({}, None),
            ({me: 20.0}, None),
            ({me: 20.0, 1: 0.9}, None),
            ({me: 20.0, 1: 0.6, 2: 0.6}, "1.2 GiB of GPU 0 were held by process 1, process 2"),
            ({me: 20.0, child.pid: 8.0}, None),
            ({me: 20.0, os.getppid(): 8.0}, f"8.0 GiB of GPU 0 were held by process {os.getppid()}"),
        ):
            card.processes = processes
            found = beside.found()
            assert found is None if size is None else found.startswith(size.partition(" (")[0]), processes
        monkeypatch.setenv(WATCHER, str(os.getppid()))  # what the launcher has started
        assert beside.found() is None
    finally:
        child.kill()
        child.wait()


def test_where_nvml_hides_processes_what_the_device_has_in_use_more_counts(card):
    unknown = Neighbours(["0"])
    card.used = 2.0
    beside = Neighbours(["0"])
    for used, found in ((2.9, None), (7.0, "5.0 GiB of GPU 0 were held by processes that NVML does not tell")):
        card.used = used
        assert beside.found() == found and unknown.found() is None
    card.processes = {os.getpid(): None, 1: 5.0}  # it names them, and not what they hold
    assert beside.found() == found
    card.used = None
    assert beside.found() is None


def test_a_neighbour_is_waited_for_and_not_for_ever(card, monkeypatch):
    monkeypatch.setattr(neighbours, "POLL_SECONDS", 0.01)
    card.processes = {os.getpid(): 1.0, 1: 5.0}
    monkeypatch.setattr(neighbours, "WAIT_SECONDS", 0.05)
    Neighbours(["0"]).wait()
    looks = iter([{os.getpid(): GIB, 1: 5 * GIB}] * 3 + [{os.getpid(): GIB}])
    monkeypatch.setattr(nvml, "processes", lambda uuid: next(looks))
    monkeypatch.setattr(neighbours, "WAIT_SECONDS", 1e9)
    Neighbours(["0"]).wait()
    assert list(looks) == []


@pytest.mark.parametrize(
    ("requested", "allocated", "reserved", "beyond"),
    [
        (3.0, 10.0, 12.0, False),
        (3.0, 20.5, 21.0, True),
        (0.001, 23.0, 23.13, True),  # a block of 20 MiB is asked for
        (0.001, 23.0, 23.1, False),
        (3.0, 21.0, None, True),
        (None, 10.0, 23.1, False),
        (3.0, None, None, False),
    ],
)
def test_a_run_that_met_its_own_limit_met_no_neighbour(requested, allocated, reserved, beyond):
    record = {"requested_gib": requested, "allocated_gib": allocated, "reserved_gib": reserved, "budget_gib": 23.14}
    assert beyond_budget(record) == beyond
    whole, part = (CpuMeter(Budget("rtx4090", 23.14, emulated=False, share_gib=share)) for share in (None, 8.0))
    assert spoiled(record, "someone", whole) == (not beyond)
    assert not spoiled(record, None, whole) and not spoiled(record, "someone", part)


def test_what_is_measured_for_searches_and_records_takes_no_neighbour_for_a_limit(tiny, root, card):
    """The error ends their process, which they count as failed."""
    run = run_of(root, tiny)
    card.processes = {os.getpid(): 1.0, 1: 5.0}

    class Hungry(System):
        def objective(self, model, batch, name):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(CardShared, match=r"the card was shared: 5\.0 GiB"):
        probing.measure(run, Hungry(run.settings), torch.device("cpu"), 2, Budget("rtx4090", 23.14, emulated=True))
