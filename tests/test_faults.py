"""What may happen to a run, caused for real: it ends as if nothing had happened, or says in one line what did."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import launch
import numpy as np
import pytest
from conftest import STUDY
from faults import survived
from safetensors.numpy import load_file, save_file
from small_vggt import job, prepare, run_of
from workflow import copy_project, snakemake

from ablation import leave
from ablation.attempts import Journal
from ablation.cli import is_host_full
from ablation.manifest import CARD
from ablation.seal import seal
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems.vggt.data.scene import ARRAYS
from ablation.systems.vggt.system import System
from ablation.yamlfile import parse_yaml

pytestmark = pytest.mark.fault


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    return prepare(scene_root, vggt, tmp_path)


def outcome(folder: Path) -> tuple[list[dict], dict[str, bytes], dict]:
    """What must be the same: the history less its times, the adapter's bytes less the card with its times, the counts."""
    rows = (folder / "history.csv").read_text().splitlines()
    names = rows[0].split(",")
    table = [{k: v for k, v in zip(names, row.split(","), strict=True) if k != "seconds"} for row in rows[1:]]
    adapter = {path.name: path.read_bytes() for path in (folder / "adapter").iterdir() if path.name != CARD}
    record = launch.record(folder)
    return table, adapter, {name: record[name] for name in ("outcome", "steps", "final_loss", "diagnoses", "parameters")}


def newest(folder: Path) -> Path:
    return max((folder / "state").glob("step-*"))


def small_files(limit: int):
    """Files of a process may not grow beyond ``limit`` bytes: as a quota, it strikes while a checkpoint is written."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))


def test_one_run_survives_what_comes_one_after_the_other(root, tiny):
    """Asked to leave, killed, a damaged checkpoint, a full disk, asked again: it ends, bit for bit as if undisturbed."""
    run = longer(run_of(root, tiny, dropout=0.2), steps=16)
    assert launch.train(*job(run, root, "undisturbed")).returncode == 0
    victim, folder, rows = job(run, root, "victim"), root / "victim", []

    left = launch.signal_after("checkpoint at step 2", signal.SIGTERM, *victim)
    assert left.returncode == leave.STATUS and "SIGTERM: left before the end" in left.stderr, left.stderr
    assert Journal(folder).events()[-1]["how"] == "preempted" and not (folder / "training.json").exists()
    reached = int(newest(folder).name[5:])

    launch.kill_after("checkpoint at step 6", *victim)
    assert started_at(folder) == (reached, 0), "it had left with a checkpoint of its last step"
    seen = "“SIGTERM: left before the end; the next attempt goes on from here”, exit status 76"
    rows.append(("asked to leave: SIGTERM", seen, left.seconds, 0))

    damaged = newest(folder)
    content = bytearray((damaged / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "state.pt").write_bytes(content)
    begun = time.monotonic()
    full = launch.train(*victim, before=small_files(len(content) // 2))
    before = int(damaged.name[5:]) - 2
    assert f"{damaged}: is damaged (checksum); using the one before" in full.stderr
    assert f"resuming after step {before}" in full.stderr
    rows.append(("kill -9 of the trainer", "the next attempt says “resuming after step N”", 0, started_at(folder)[1] - 2))
    rows.append(("corrupted checkpoint", "its path, “is damaged (checksum); using the one before”", 0, 2))
    assert full.returncode == 2, full.stderr
    error = full.stderr.splitlines()[-1]
    assert error.startswith("error: ") and "no room for the checkpoint" in error and f"of step {before} is whole" in error
    assert Journal(folder).events()[-1]["how"] == "failed"
    assert not list((folder / "state").glob(".step*")), "what could not be finished takes no room"
    seconds = time.monotonic() - begun

    left = launch.signal_after(f"checkpoint at step {before + 4}", signal.SIGUSR1, *victim)
    assert left.returncode == leave.STATUS and "SIGUSR1: left before the end" in left.stderr
    rows.append(("full disk", f"“{without_paths(error)}”", seconds, started_at(folder)[1]))
    rows.append(("asked to leave: SIGUSR1", seen.replace("TERM", "USR1"), left.seconds, 0))

    done = launch.train(*victim)
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(root / "undisturbed")
    assert launch.record(folder)["attempts"]["count"] == 5
    assert not list((folder / "state").glob("step-*")), "what is finished needs no checkpoints"
    for case, seen, seconds, repeated in rows:
        survived(case, "local", seen=seen, seconds=seconds, repeated=repeated, same="bit for bit")


def slow_evaluation() -> None:
    """An evaluation that lasts until it is stopped, and longer than who has sent a signal waits for the end."""
    System.evaluate = lambda *arguments: time.sleep(3000)


def broken_evaluation() -> None:
    """One that fails."""

    def fail(*arguments):
        raise ValueError("no depth")

    System.evaluate = fail


def test_what_befalls_the_evaluation_trains_nothing_again(root, tiny):
    """Asked to leave, killed, failed: what is trained stays, and the next attempt evaluates it as one process does all."""
    run, base = run_of(root, tiny), root / "base.json"
    base.write_text(json.dumps({"metrics": {}, "items": []}))
    assert launch.train(*job(run, root, "undisturbed"), base=base).returncode == 0
    wanted = evaluated(root / "undisturbed")
    victim, folder = job(run, root, "victim"), root / "victim"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        left = launch.signal_after("evaluating", number, *victim, base=base, before=slow_evaluation)
        assert left.returncode == leave.STATUS and f"{number.name}: left before the end" in left.stderr
    launch.kill_after("evaluating", *victim, base=base, before=slow_evaluation)
    failed = launch.train(*victim, base=base, before=broken_evaluation)
    assert failed.returncode == 1 and failed.stderr.rstrip().endswith("ValueError: no depth")
    assert not (folder / "metrics.json").exists()
    for name in ("run.yaml", "history.csv", "training.json", "manifest.json"):
        (folder / name).unlink()  # as Snakemake does
    done = launch.train(*victim, base=base)
    assert done.returncode == 0 and "trained already" in done.stderr, done.stderr
    assert evaluated(folder) == wanted and wanted["metrics"]
    for name in ("adapter/adapter_model.safetensors", "run.yaml"):
        assert (folder / name).read_bytes() == (root / "undisturbed" / name).read_bytes()
    assert [event["event"] for event in Journal(folder).events()] == ["start", "train", "end"]


def evaluated(folder: Path) -> dict:
    """What the evaluation found."""
    record = json.loads((folder / "metrics.json").read_text())
    return {name: record[name] for name in ("outcome", "metrics", "items", "metrics_before")}


def started_at(folder: Path) -> tuple[int, int]:
    """The step after which the latest attempt went on, and how many it took again."""
    event = [event for event in Journal(folder).events() if event["event"] == "train"][-1]
    return event["step"], event["repeats"]


def longer(run: Run, **training) -> Run:
    """``run`` with other settings of its training."""
    settings = run.settings.model_copy(update={"training": run.settings.training.model_copy(update=training)})
    return replace(run, settings=settings)


def without_paths(error: str) -> str:
    """An error without this machine's folders."""
    return re.sub(r"/\S*/", "", error)


def test_a_second_job_publishes_the_first_one_s_result(root, tiny):
    """As when Snakemake is killed and started again while its job lives on: one trains, the other waits."""
    run = longer(run_of(root, tiny), steps=16)
    folder = root / "run"
    first = launch.start(*job(run, root, "run"))
    for line in first.stderr:
        if "checkpoint at step 2" in line:
            break
    second = launch.start(*job(run, root, "run"))
    (_, second_said) = (process.communicate(timeout=300)[1] for process in (first, second))
    assert first.returncode == second.returncode == 0, second_said
    assert f"waiting for the job that trains this run: process {first.pid} on " in second_said
    assert "is trained already" in second_said and "training" not in second_said.partition("trained already")[2]
    assert launch.record(folder)["attempts"] == {"count": 1, "repeated_steps": 0}
    (folder / "training.json").unlink()
    again = launch.train(*job(run, root, "run"))
    assert again.returncode == 0 and launch.record(folder)["outcome"] == "completed" and len(Journal(folder).events()) == 3


def test_a_data_file_that_is_damaged_is_named(root, tiny):
    """One bit, which no reader of the format would notice."""
    run = run_of(root, tiny)
    seal(root / "hall")
    file = root / "hall" / ARRAYS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    begun = time.monotonic()
    done = launch.train(*job(run, root, "run"))
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and error.startswith("error: ") and str(file) in error and "Traceback" not in done.stderr
    assert Journal(root / "run").events()[-1]["how"] == "failed"
    seconds = time.monotonic() - begun
    survived("corrupted data file", "local", seen=f"“{without_paths(error)}”", seconds=seconds, repeated=0, same=NONE)


@pytest.mark.long
def test_snakemake_killed_and_started_again_waits_for_the_job_that_lives_on(tmp_path):
    """The second job of the run takes the first one's result: the run is trained once."""
    project = copy_project(tmp_path / "project")
    data = "{scenes: [library], split: {by: image, train: 0.7, test: []}, frames: 2, resolution: [42, 56]}"
    training = "{steps: 200, checkpoint_every: 10, preview_every: null}"
    config = [f"data={data}", f"training={training}", "sweep={strategy: A, rank: 4, seed: 0}"]
    changes = {name: parse_yaml(text) for name, _, text in (word.partition("=") for word in config)}
    (run,) = expand(load_study(STUDY, changes), "vggt-eth3d")
    folder = project / f"results/demo/vggt-eth3d/runs/{run.id}"
    target = str((folder / "training.json").relative_to(project))
    done = snakemake(project, target, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    folder.rename(tmp_path / "undisturbed")

    command = [sys.executable, "-m", "snakemake", target, "--profile", "local", "-c2", "--config", *config]
    first = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_words(folder / "trainer.log", "checkpoint at step 10")
    first.kill()
    first.wait()
    refused = snakemake(project, target, config=config)
    assert refused.returncode != 0 and "--unlock" in refused.stderr
    assert snakemake(project, target, "--unlock", config=config).returncode == 0
    begun = time.monotonic()
    done = snakemake(project, target, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert launch.record(folder)["attempts"] == {"count": 1, "repeated_steps": 0}
    assert outcome(folder) == outcome(tmp_path / "undisturbed")
    seen = "Snakemake asks for --unlock; then the second job waits for the first and publishes its result"
    row = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "bit for bit"}
    survived("kill -9 of Snakemake, started again", "local", seen=seen, **row)


def wait_for_words(path: Path, words: str, limit: float = 300) -> None:
    """Until a log says it."""
    end = time.monotonic() + limit
    while not (path.is_file() and words in path.read_text()):
        assert time.monotonic() < end, f"{path} never said {words}"
        time.sleep(0.05)


NONE = "no result, as it must"


def test_nan_in_the_data_ends_the_run_as_diverged(root, tiny):
    file = root / "hall" / ARRAYS
    arrays = load_file(file)
    arrays["extrinsics"][:] = np.nan
    save_file(arrays, file)
    begun = time.monotonic()
    done = launch.train(*job(run_of(root, tiny), root, "run"))
    record = launch.record(root / "run")
    assert done.returncode == 0 and record["outcome"] == "diverged", done.stderr
    (diagnosis,) = record["diagnoses"]
    seen = f"outcome diverged: “{diagnosis['name']} at step {diagnosis['step']}: {diagnosis['detail']}”, in log and report"
    survived("NaN injected", "local", seen=seen, seconds=time.monotonic() - begun, repeated=0, same="a result of its own")


def test_host_memory_that_is_full_is_one_error_that_says_what_to_ask_for(root, tiny):
    """A limit on the process's own memory, as clusters without control groups set it; a control group kills -9."""
    begun = time.monotonic()
    done = launch.train(*job(run_of(root, tiny, batch=1024), root, "run"), before=little_memory)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "host memory is full" in error and "compute.mem_gib" in error, done.stderr
    seconds = time.monotonic() - begun
    survived("host OOM", "local", seen=f"“{without_paths(error)}”", seconds=seconds, repeated=0, same=NONE)


def test_onednn_that_cannot_prepare_an_operation_lacks_memory_within_a_limit_alone(monkeypatch):
    error = RuntimeError("could not create a primitive")
    monkeypatch.setattr(resource, "getrlimit", lambda of: (resource.RLIM_INFINITY,) * 2)
    assert not is_host_full(error)
    monkeypatch.setattr(resource, "getrlimit", lambda of: (1 << 30, resource.RLIM_INFINITY))
    assert is_host_full(error)


def little_memory() -> None:
    """What the program's libraries take, and a little more."""
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
