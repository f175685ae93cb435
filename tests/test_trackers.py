"""Trackers are off unless a study asks for them, get every step's numbers, and are missed with one clear error."""

from dataclasses import replace

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from conftest import STUDY

from ablation.errors import UserError
from ablation.study import load_study
from ablation.sweep import expand
from ablation.training import trackers
from ablation.training.trackers import check_trackers, tracked


def run_with(*names):
    run = expand(load_study(STUDY, {"compute": {"trackers": list(names)}}), "s")[0]
    assert replace(run).id == expand(load_study(STUDY), "s")[0].id  # no other run for it
    return run


class Notebook(GeneralTracker):
    """Accelerate's own base class; stands in for one that this environment has not."""

    name, requires_logging_directory, tracker, told = "mlflow", False, None, []

    def __init__(self, project, run_name):
        super().__init__()
        self.told.append(("begin", project, run_name))

    def store_init_configuration(self, values):
        self.told.append(("axes", values))

    def log(self, values, step, **more):
        self.told.append((step, values))

    def finish(self):
        self.told.append("end")


def test_a_tracker_hears_of_project_run_axes_and_steps(monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "mlflow", Notebook)
    monkeypatch.setattr(Notebook, "told", [])
    run, accelerator = run_with("mlflow"), Accelerator(cpu=True)
    with tracked(accelerator, run):
        accelerator.log({"train/loss": 0.5}, step=1)
    accelerator.log({"train/loss": 0.4}, step=2)  # ended
    axes = {axis: value for axis, value in run.axes.items() if value is not None}
    assert Notebook.told == [("begin", "s", run.id), ("axes", axes), (1, {"train/loss": 0.5}), "end"]


def test_none_is_asked_for_by_default():
    accelerator = Accelerator(cpu=True)
    with tracked(accelerator, run_with()):
        accelerator.log({"train/loss": 0.5}, step=1)
    assert accelerator.trackers == []


def test_a_missing_package_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compute\.trackers: wandb is not installed here: pip install wandb"):
        check_trackers(run_with("wandb"))


def test_mlflow_itself(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    run, accelerator = run_with("mlflow"), Accelerator(cpu=True)
    check_trackers(run)
    with tracked(accelerator, run):
        accelerator.log({"train/loss": 0.5}, step=7)
    (found,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("s").experiment_id])
    assert found.info.run_name == run.id and found.data.params["strategy"] == run.axes["strategy"]
    assert found.data.metrics == {"train/loss": 0.5}
