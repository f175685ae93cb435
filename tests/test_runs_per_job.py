"""Several runs in one job, each in a fork of its process: they learn what they learn alone, and harm no other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from ready import Program
from small_vggt import job, prepare, study_of
from test_faults import evaluated, outcome

from ablation import lease, leave
from ablation.attempts import Journal
from ablation.files import write_csv
from ablation.resolved import runs_of, save_study
from ablation.sweep import Run
from ablation.training.companions import companions_of
from ablation.training.trainer import Trainer

PROGRAM = ROOT / "scripts/train_run.py"
PUBLISHED = ("run.yaml", "history.csv", "training.json", "manifest.json", "metrics.json")


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    (tmp_path / "base.json").write_text(json.dumps({"metrics": {}, "items": []}))
    return prepare(scene_root, vggt, tmp_path)


def studied(folder: Path, tiny, runs_per_job: int, steps: int = 4) -> list[Run]:
    """A study of three runs in ``folder``, and its plan."""
    study = study_of(folder.parent, tiny, 0.2, steps=steps, compute={"runs_per_job": runs_per_job}, seed=[0, 1, 2])
    save_study(folder / "study.json", "tiny", study)
    runs = runs_of(folder / "study.json")
    write_csv(folder / "plan.csv", [{"run": run.id, "predicted_gib": 1.0, "verdict": "fits"} for run in runs])
    return runs


def command(run: Run, study: Path) -> list:
    """As the workflow calls the program."""
    _, _, weights, data = job(run, study.parent, "unused")
    return [
        *(PROGRAM, "--study", study / "study.json", "--run", run.id, "--folder", study / "runs" / run.id),
        *("--weights", *(f"{name}={path}" for name, path in weights.items()), "--data", *data),
        *("--base", study.parent / "base.json", "--plan", study / "plan.csv", "--cards", ROOT / "config/hardware"),
        *("--hashes", study.parent / "hashes", "--device", "cpu"),
    ]


def start(run: Run, study: Path, before=None) -> Program:
    return Program(command(run, study), {**os.environ, "OMP_NUM_THREADS": "1"}, before)


def ended(process: Program, status: int = 0) -> str:
    """What it still says until it ends with ``status``."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    return said


def hear(process: Program, *words: str) -> None:
    """Wait until it has said each of ``words``, in this order."""
    for wanted in words:
        assert any(wanted in line for line in process.stderr), f"never said: {wanted}"


def alone(root: Path, tiny, **more) -> tuple[Path, list[Run]]:
    """The same runs, a process each."""
    runs = studied(root / "alone", tiny, 1, **more)
    for run in runs:
        ended(start(run, root / "alone"))
    return root / "alone/runs", runs


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit, in history, adapter and metrics."""
    assert outcome(one) == outcome(other)
    assert evaluated(one) == evaluated(other) and evaluated(one)["metrics"]
    assert (one / "run.yaml").read_bytes() == (other / "run.yaml").read_bytes()


def without_torch(root: Path) -> dict[str, str]:
    """An environment in which it cannot be imported."""
    (root / "no_torch").mkdir(exist_ok=True)
    (root / "no_torch/torch.py").write_text("raise AssertionError('torch was imported')\n")
    return {**os.environ, "PYTHONPATH": str(root / "no_torch")}


def test_three_runs_learn_in_one_job_what_they_learn_alone(root, tiny):
    """The jobs of the second and third have nothing left to do but to publish, for which they load no torch."""
    apart, runs = alone(root, tiny)
    shared = root / "shared"
    studied(shared, tiny, 3)
    said = ended(start(runs[0], shared))
    assert [f"run {run.id}, in the process of {runs[0].id}" in said for run in runs] == [False, True, True]
    for run in runs[1:]:
        folder = shared / "runs" / run.id
        assert not [name for name in PUBLISHED if (folder / name).exists()], "they are its own job's to make"
        assert "training" in (folder / "trainer.log").read_text()
        own = [sys.executable, *command(run, shared)]
        done = subprocess.run(own, env=without_torch(root), capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "is trained already" in done.stderr, done.stderr
    for run in runs:
        assert_same(shared / "runs" / run.id, apart / run.id)
        folder = shared / "runs" / run.id
        assert [event["event"] for event in Journal(folder).events()] == ["start", "train", "end"]
        assert (folder / "adapter/README.md").exists() and list((folder / "tensorboard").glob("*.hparams"))
        assert not list((folder / "state").glob("step-*")) and not (folder / "state/evaluated.json").exists()


def fail_for_the_second() -> None:
    """An error in the training of the run with seed 1."""
    train = Trainer.train

    def fails(self):
        if self.run.axes["seed"] == 1:
            raise ValueError("no second run")
        return train(self)

    Trainer.train = fails


def test_what_befalls_one_run_is_its_own(root, tiny):
    """An error, then kill -9, in the second run: the others end well, and its own job goes on with it."""
    apart, runs = alone(root, tiny, steps=16)
    first, second, third = runs
    for name in ("error", "killed"):
        study = root / name
        studied(study, tiny, 3, steps=16)
        process = start(first, study, fail_for_the_second if name == "error" else None)
        if name == "error":
            said = ended(process)
            assert "ValueError: no second run" in said
            assert f"run {second.id} failed; its own job tries it again" in said
            assert Journal(study / "runs" / second.id).events()[-1]["reason"] == "ValueError: no second run"
        else:
            hear(process, f"run {second.id}, in the process of", "checkpoint at step 4")
            (child,) = psutil.Process(process.pid).children()
            child.kill()
            assert f"run {second.id} was killed by SIGKILL" in ended(process)
        assert (study / "runs" / first.id / "metrics.json").exists()
        said = ended(start(second, study))
        assert ("resuming after step" in said) == (name == "killed")
        assert "is trained already" in ended(start(third, study)), "it was not harmed"
        for run in runs:
            assert_same(study / "runs" / run.id, apart / run.id)


def test_all_leave_when_they_are_asked_to_and_go_on_later(root, tiny):
    """In the run itself and in one that follows; kill -9 of the job leaves nobody behind."""
    apart, runs = alone(root, tiny, steps=16)
    first, second, third = runs
    study = root / "shared"
    studied(study, tiny, 2, steps=16)

    process = start(first, study)
    hear(process, "checkpoint at step 2")
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: left before the end" in ended(process, leave.STATUS)
    assert Journal(study / "runs" / first.id).events()[-1]["how"] == "preempted"

    process = start(first, study)
    hear(process, "resuming after step", f"run {second.id}, in the process of", "checkpoint at step 2")
    process.send_signal(signal.SIGUSR1)
    assert "SIGUSR1: left before the end" in ended(process, leave.STATUS)
    assert Journal(study / "runs" / second.id).events()[-1]["how"] == "preempted"
    (study / "runs" / first.id / "metrics.json").unlink()  # as Snakemake does
    assert "run " + first.id + " on" not in ended(start(first, study)), "all is kept: it need only be published"

    process = start(second, study)
    hear(process, "resuming after step", "checkpoint at step")
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    assert not psutil.wait_procs([child], timeout=60)[1], "it dies with its job"
    said = ended(start(second, study))
    assert f"run {third.id}, in the process of {second.id}" in said
    ended(start(third, study))
    for run in runs:
        assert_same(study / "runs" / run.id, apart / run.id)


def test_a_run_that_is_killed_in_its_own_job_fails_that(root, tiny):
    """And no other is begun."""
    study = root / "shared"
    runs = studied(study, tiny, 3, steps=16)
    process = start(runs[0], study)
    hear(process, "checkpoint at step 2")
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    assert "error: the process of the run was killed by SIGKILL" in ended(process, 2)
    assert not (study / "runs" / runs[1].id).exists()


def test_a_run_that_another_job_does_is_passed_over(root, tiny):
    study = root / "shared"
    runs = studied(study, tiny, 2)
    with lease.hold(study / "runs" / runs[1].id):
        with lease.hold_if_free(study / "runs" / runs[1].id) as free:
            assert not free
        said = ended(start(runs[0], study))
    assert f"run {runs[1].id}" not in said and f"run {runs[2].id}, in the process of" in said


def test_which_runs_follow(root, tiny):
    """Those that the plan sends, that read the same, and that need one process."""
    study = study_of(root, tiny, precision=["fp32", "bf16"], seed=[0, 1, 2, 3], gpus=[1, 2])
    save_study(root / "study.json", "tiny", study)
    runs = runs_of(root / "study.json")
    verdicts = {0: "fits", 1: "tight", 2: "oom", 3: "fits"}
    plan = root / "plan.csv"
    write_csv(plan, [{"run": run.id, "verdict": verdicts[run.axes["seed"]]} for run in runs])
    first = runs[0]
    found = companions_of(first, root / "study.json", plan)
    assert [(run.axes["precision"], run.axes["gpus"], run.axes["seed"]) for run in found] == [("fp32", 1, 1), ("fp32", 1, 3)]
    assert companions_of(first, root / "study.json", root / "none.csv") == []
