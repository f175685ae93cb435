"""The trainer: the right parameters, the right steps, the same numbers after any interruption."""

import csv
import json
import sys

import naive_run
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

from ablation.errors import UserError
from ablation.evaluation import evaluate
from ablation.state import State
from ablation.study import study_model
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.vggt.data.making import prepare_scene
from ablation.training import guards
from ablation.training.model import for_evaluation, for_training, pretrained
from ablation.training.strategy import trained_of
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter

CPU = torch.device("cpu")
PLENTY = Budget("any", 1.0, emulated=True)  # a GiB; the tiny network takes a few MiB


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def folders(scene_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    for name in ("hall", "yard"):
        prepare_scene(
            scene_root, name, {"size": (28, 42), "fit": "crop", "depth_range": (0.1, 100), "dense": False}, out / name
        )
    return [out / "hall", out / "yard"]


@pytest.fixture
def setup(tmp_path, tiny, vggt, folders):
    """Builds trainers of a tiny study: ``setup(folder, **changes)``. Afterwards none of them counts memory any more."""
    built = []
    save_file(vggt.state_dict(), tmp_path / "weights.safetensors")
    weights = {"weights": tmp_path / "weights.safetensors"}

    def run_of(strategy="A", training=None, lora=None, loss=None, **axes):
        content = {
            "system": "vggt",
            "data": {
                "scenes": ["hall", "yard"], "resolution": [28, 42], "frames": 3, "target": "laser", "split": {"by": "scene"},
                "augment": {"crop": 0.8, "jitter": 0.2, "mirror": 0.5},
            },
            "model": {"weights": str(weights["weights"]), "architecture": tiny.model_dump(mode="json")},
            "training": {"steps": 6, "checkpoint_every": 2, **(training or {})},
            "lora": lora or {},
            "loss": loss or {},
            "compute": {"threads": 1, "workers": 0},
            "strategies": {
                "A": {"train": {"lora": ["depth_head", "aggregator.global_blocks.2-3"]}, "lr": 1e-3},
                "whole": {"train": {"full": ["depth_head.scratch"]}, "lr": 1e-3},
                "still": {"train": {"full": ["depth_head.scratch"]}, "lr": 1e-40},
            },
            "sweep": {"strategy": strategy, "rank": 4, "precision": "fp32", **axes},
        }  # fmt: skip
        study = study_model("vggt").model_validate(content)
        return expand(study, "tiny")[0]

    def build(folder, run=None, **changes):
        run = run or run_of(**changes)
        (tmp_path / folder).mkdir(exist_ok=True)
        system = load_system(run.settings)
        built.append(Trainer(run, system, weights, folders, tmp_path / folder, CPU, CpuMeter(PLENTY)))
        return built[-1]

    build.run_of, build.weights, build.root = run_of, weights, tmp_path
    yield build
    for trainer in built:
        trainer.meter.report()


def trained(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def finish(trainer):
    """Train to the end; the trained parameters and the history."""
    assert trainer.train() == "completed"
    trainer.finish()
    return trained(trainer), [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history.rows]


def saved(setup, folder):
    """The adapter that a run has left."""
    return load_file(setup.root / folder / "adapter/adapter_model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["A", "whole"])
def test_the_trainer_learns_what_a_plain_loop_learns(setup, strategy):
    trainer = setup("trained", strategy=strategy, batch=2)
    assert trainer.train() == "completed"
    ours = trained_of(trainer.model)
    weights = {"weights": trainer.folder.parent / "weights.safetensors"}
    plain = trained_of(naive_run.trained(trainer.run, trainer.system, weights, trainer.data))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in ours)


def test_training_lowers_the_loss_and_leaves_a_standard_adapter(setup, vggt):
    trainer = setup("run", training={"steps": 25, "checkpoint_every": 100})
    finish(trainer)
    losses = trainer.history.column("loss")
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    saved = PeftModel.from_pretrained(vggt, str(setup.root / "run/adapter"))
    ours, theirs = trainer.model.eval(), saved.eval()
    images = torch.rand(1, 3, 3, 28, 42)
    with torch.no_grad():
        assert torch.equal(ours(images)["depth"], theirs(images)["depth"])


def test_only_what_the_strategy_names_changes(setup):
    trainer = setup("run")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    finish(trainer)
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("lora_" in name and ("depth_head" in name or "global_blocks" in name) for name in changed)


def test_full_fine_tuning_is_saved_and_loaded(setup):
    trainer = setup("run", strategy="whole")
    after, _ = finish(trainer)
    assert after and all(name.startswith("depth_head.scratch") for name in after)
    loaded = for_evaluation(trainer.system, "fp32", setup.weights, setup.root / "run", CPU)
    assert all(torch.equal(loaded.get_parameter(name), value) for name, value in after.items())


def test_the_same_seed_gives_the_same_bits_another_seed_others(setup):
    first, second, other = (finish(setup(f"run{i}", seed=seed)) for i, seed in enumerate([3, 3, 4]))
    assert same(first[0], second[0]) and first[1] == second[1]
    assert not same(first[0], other[0])


def test_data_loader_processes_change_nothing(setup):
    alone, _ = finish(setup("alone"))
    run = setup.run_of()
    object.__setattr__(run.settings.compute, "workers", 2)
    helped, _ = finish(setup("helped", run=run))
    assert same(alone, helped)


DEATHS = [("fp32", 1, 0), ("fp32", 2, 0), ("fp32", 5, 0), ("bf16", 3, 0), ("fp16", 3, 0), ("fp32", 3, 0.9)]


@pytest.mark.parametrize(("precision", "died_after", "ema"), DEATHS)
def test_a_run_that_died_ends_bitwise_equal(setup, precision, died_after, ema):
    """Death at any step: the next attempt continues from the last checkpoint and the end is the same, history included."""
    how = {"precision": precision, "accumulation": 2, "training": {"ema": ema}}
    undisturbed = finish(setup("whole", **how))
    victim = setup("victim", **how)
    steps, step = [], victim._step

    def dying(number, batches):
        if number == died_after:
            raise KeyboardInterrupt
        steps.append(number)
        return step(number, batches)

    victim._step = dying
    with pytest.raises(KeyboardInterrupt):
        victim.train()
    resumed = finish(setup("victim", **how))
    assert same(undisturbed[0], resumed[0]) and same(saved(setup, "whole"), saved(setup, "victim"))
    assert [{k: float(v) for k, v in row.items()} for row in undisturbed[1]] == [
        {k: float(v) for k, v in row.items()} for row in resumed[1]
    ]


def test_what_is_saved_is_the_average_where_there_is_one(setup):
    trainer = setup("run", training={"ema": 0.999})
    after, _ = finish(trainer)
    average = trainer.training_step.average
    assert average.updates == 6
    for name, weight, last in zip(average.names, average.weights, after.values(), strict=True):
        stored = saved(setup, "run")[name.replace(".default", "")]
        assert torch.equal(stored, weight) and not torch.equal(stored, last)


@pytest.mark.parametrize(("when", "kept"), [({"checkpoint_every": None}, []), ({"checkpoint_every": 4}, [4])])
def test_checkpoints_come_by_steps_and_by_epochs(setup, when, kept):
    """An epoch is two steps here; the last of six needs no checkpoint."""
    finish(setup("run", training={**when, "keep_checkpoints": 9}))
    assert [int(path.name[5:]) for path in sorted((setup.root / "run/state").glob("step-*"))] == kept
    trainer = setup("epochs", training={**when, "checkpoint_epochs": 1, "keep_checkpoints": 9})
    finish(trainer)
    by_epoch = set(range(trainer.steps_per_epoch, 6, trainer.steps_per_epoch))
    assert by_epoch
    assert [int(path.name[5:]) for path in sorted((setup.root / "epochs/state").glob("step-*"))] == sorted(by_epoch | set(kept))


def test_history_file_has_a_row_a_step(setup):
    trainer = setup("run")
    finish(trainer)
    rows = list(csv.DictReader((setup.root / "run/state/history.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"lr", "loss", "camera", "conf", "reg", "grad", "grad_norm", "seconds", "epoch"} <= set(rows[0])


def test_tensorboard_has_the_loss(setup):
    trainer = setup("run")
    finish(trainer)
    events = EventAccumulator(str(setup.root / "run/tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(trainer.history.column("loss"))


def test_previews_are_kept_and_disturb_nothing(setup):
    undisturbed, _ = finish(setup("plain"))
    seen = setup("seen", training={"preview_every": 4})
    assert same(undisturbed, finish(seen)[0])
    steps = sorted((setup.root / "seen/previews").iterdir())
    assert [step.name for step in steps] == ["step-00000004", "step-00000006"] and all(list(s.glob("*.png")) for s in steps)
    events = EventAccumulator(str(setup.root / "seen/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("preview/depth_mae")] == [4, 6]
    assert seen.model.training


def test_accumulation_equals_a_larger_batch(setup):
    """Two batches of one and one batch of two give one gradient up to rounding, for a loss that is a mean over samples."""
    loss = {"camera": 1.0, "conf": 0.0, "reg": 0.0, "grad": 0.0}
    run = setup.run_of(lora={"dropout": 0.0}, loss=loss, training={"steps": 1, "clip": None})
    gradients = []
    for name, size in (("whole", 2), ("halves", 1)):
        trainer = setup(name, run=run)
        samples = [trainer.samples[Draw(0, 0, 0, index)] for index in (0, 1)]
        batches = [default_collate(samples[i : i + size]) for i in range(0, 2, size)]
        kept = {}
        trainer.optimizer.optimizer.register_step_pre_hook(
            lambda *_, t=trainer, k=kept: k.update(
                {n: p.grad.clone() for n, p in t.model.named_parameters() if p.requires_grad}
            )
        )
        trainer.training_step(batches, len(batches), lambda _: None)
        gradients.append(kept)
        AcceleratorState._reset_state(True)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_gradient_norm_is_reported_before_clipping(setup):
    trainer = setup("run", training={"clip": 1e-3})
    finish(trainer)
    assert all(norm > 1e-3 for norm in trainer.history.column("grad_norm"))


def test_frozen_weights_are_held_in_the_compute_type_heads_in_fp32(setup):
    run = setup.run_of(precision="bf16")
    model = for_training(load_system(run.settings), run, setup.weights, CPU)
    kinds = {}
    for name, parameter in model.named_parameters():
        where = "trained" if parameter.requires_grad else "heads" if "_head." in name else "rest"
        kinds.setdefault(where, set()).add(parameter.dtype)
    assert kinds == {"trained": {torch.float32}, "heads": {torch.float32}, "rest": {torch.bfloat16}}


def test_tf32_on_a_cpu_is_refused(setup):
    with pytest.raises(UserError, match="tf32 needs a CUDA device"):
        setup("run", precision="tf32")


def test_record_says_what_was_measured(setup):
    trainer = setup("run")
    finish(trainer)
    record = trainer.record()
    json.dumps(record, allow_nan=False)
    assert record["steps"] == record["total_steps"] == 6
    memory = record["memory"]
    assert memory["kind"] == "cpu" and set(memory["phases"]) == {"forward", "backward", "optimizer"}
    assert memory["peak_allocated_gib"] == max(phase["allocated_gib"] for phase in memory["phases"].values())
    weights = sum(p.nbytes for p in trainer.model.parameters()) / 2**30
    assert weights < memory["phases"]["optimizer"]["allocated_gib"] < memory["peak_allocated_gib"]
    assert record["time"]["step_median_s"] > 0 and record["time"]["samples_per_s"] > 0


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_before_training_is_that_of_the_pretrained_model(setup, folders):
    """An adapter that has not learned anything changes nothing."""
    run = setup.run_of(training={"steps": 1, "warmup": 0.0})
    system = load_system(run.settings)
    before = evaluate(system, "fp32", setup.weights, None, folders, setup.root / "p", CPU)
    trainer = setup("run", run=run)
    trainer.finish()
    untrained = evaluate(system, "fp32", setup.weights, setup.root / "run", folders, setup.root / "q", CPU)
    assert before["metrics"] == untrained["metrics"]
    assert {
        "depth_mae",
        "depth_absrel",
        "depth_rmse",
        "depth_delta1",
        "depth_mae_planar",
        "depth_mae_detail",
        "pose_auc30",
    } <= set(before["metrics"])
    assert [item["item"] for item in before["items"]] == ["yard"] and before["notes"]["images"] == "6"
    assert sorted(path.name for path in (setup.root / "p").glob("*.png")) == ["yard-DSC_0002.png", "yard-DSC_0005.png"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_nan_ends_the_run_as_diverged_with_a_diagnosis(setup):
    trainer = setup("run")
    original = trainer.system.objective

    def poisoned(model, batch, name):
        objective = original(model, batch, name)
        bad = trainer.optimizer.state and len(trainer.history.rows) == 3
        return objective._replace(loss=objective.loss * (float("nan") if bad else 1))

    trainer.system.objective = poisoned
    assert trainer.train() == "diverged"
    record = trainer.record()
    assert record["steps"] == 3 and record["diagnoses"][0]["name"] == "non-finite loss" and record["diagnoses"][0]["step"] == 4
    assert "lr" in record["diagnoses"][0]["remedy"]
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("steps", [6, 30])
@pytest.mark.parametrize("behind", [0, 1])
def test_a_run_whose_samples_have_no_target_is_untrained(setup, steps, behind):
    """An epoch, or all of a shorter run, in which loss and gradient are exactly 0."""
    trainer = setup("run", training={"steps": steps})
    trainer.behind = behind
    original = trainer.system.objective
    trainer.system.objective = lambda *args: (found := original(*args))._replace(loss=found.loss * 0)
    assert trainer.train() == "untrained"
    (diagnosis,) = trainer.record()["diagnoses"]
    epoch = min(steps, trainer.steps_per_epoch)
    assert (diagnosis["name"], diagnosis["step"]) == ("no valid target", epoch) and len(trainer.history.rows) == epoch


def test_a_run_whose_gradient_is_zero_is_untrained_though_it_has_a_loss(setup):
    trainer = setup("run", training={"steps": 50})
    original = trainer.system.objective
    trainer.system.objective = lambda *args: (found := original(*args))._replace(loss=found.loss * 0 + 1)
    assert trainer.train() == "untrained" and [d.name for d in trainer.diagnoses] == ["no gradient"]
    assert len(trainer.history.rows) == guards.NOTHING_LEARNED


@pytest.mark.parametrize("zeros", [range(5, 5 + guards.NOTHING_LEARNED - 1), range(0, 40, 2)])
def test_single_steps_without_a_gradient_are_ordinary(zeros):
    norms = [0.0 if step in zeros else 1.0 for step in range(40)]
    found = [guards.check_learning(norms[:n], norms[:n], 100, 200) for n in range(1, 41)]
    assert found == [None] * 40


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_ends_with_its_first_weights_is_untrained(setup, ema, interrupted):
    """A learning rate below what the weights can take up, also where it was interrupted: the first weights are rebuilt."""
    settings = {"steps": 4, "warmup": 0, "min_lr": 0, "schedule": "constant", "weight_decay": 0, "ema": ema}
    trainer = setup("run", strategy="still", training=settings)
    if interrupted:
        original = trainer._step
        trainer._step = lambda step, batches: original(step, batches) if step < 3 else sys.exit("killed")
        with pytest.raises(SystemExit, match="killed"):
            trainer.train()
        trainer = setup("run", trainer.run)
        assert trainer.start == 2
    assert trainer.train() == "untrained"
    assert [(d.name, d.step) for d in trainer.diagnoses] == [("weights unchanged", 4)]


def test_a_loss_that_does_not_fall_is_reported(setup):
    trainer = setup("run", training={"steps": 12, "guards": {"stuck_after": 10, "stuck_drop": 0.99}})
    finish(trainer)
    assert [d.name for d in trainer.diagnoses] == ["loss stuck"]


def test_other_settings_start_afresh_and_nothing_of_the_old_run_is_left(setup):
    """Same folder, changed settings: no old checkpoint is resumed or counted, no old adapter can be taken for a new one."""
    finish(setup("run", training={"steps": 30, "checkpoint_every": 10}))
    changed = setup.run_of(training={"steps": 4, "checkpoint_every": 1})
    State(setup.root / "run").take("f" * 64, changed.training_view, {})
    other = setup("run", changed)
    assert other.train() == "completed" and other.history.column("step") == [1, 2, 3, 4]
    assert sorted(path.name for path in (setup.root / "run/state").glob("step-*")) == ["step-00000002", "step-00000003"]
    assert not (setup.root / "run/adapter").exists()
    other.finish()
    assert (setup.root / "run/adapter").exists()


def test_weights_that_are_absent_stop_the_run(setup):
    run = setup.run_of()
    with pytest.raises(UserError, match="no pretrained weights"):
        pretrained(load_system(run.settings), {"weights": setup.root / "absent.safetensors"})


def test_saved_adapter_holds_only_the_adapter(setup):
    finish(setup("run"))
    targets = json.loads((setup.root / "run/adapter/adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets), "PEFT's order is another each time; results are compared byte for byte"
    names = load_file(setup.root / "run/adapter/adapter_model.safetensors")
    assert names and all("lora_" in name for name in names)
