"""The system as the trainer and the workflow see it, for classes and for captions."""

import json
import shutil
from pathlib import Path

import drawings
import numpy as np
import pytest
import torch
from allocations import peak_of_step
from conftest import ROOT
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

from ablation import seal
from ablation.ahead import steps_ahead
from ablation.errors import UserError
from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.dit import preparation
from ablation.systems.dit.data.listing import read_list
from ablation.systems.dit.evaluation import distinct, draw, in_turn, loss
from ablation.systems.dit.judge import FACTS, TrainedJudge
from ablation.systems.dit.metrics import frechet_distance, moments
from ablation.systems.dit.pictures import save_grid
from ablation.systems.dit.system import System
from ablation.training.model import for_evaluation, for_training
from ablation.training.strategy import save_trained, trained_of
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter
from ablation.vram.replay import allocated_peak
from ablation.vram.step import trace_step_on_cpu

STUDY = ROOT / "config/studies/dit-images.yaml"
CPU = torch.device("cpu")
TINY = {"depth": 2, "heads": 2, "head_dim": 8}


def study(root: Path, **changed):
    """The demo study on the pictures in ``root``, with a tiny network."""
    data = {
        "source": "folder",
        "root": str(root),
        "size": 32,
        "flip": True,
        "test": 0.25,
        "judge": {"size": 16, "epochs": 8},
        **changed.pop("data", {}),
    }
    evaluation = {"samples": 8, "batch": 4, "steps": 3, "rows": 2, "columns": 2}
    model = {"architecture": {**TINY, **changed.pop("architecture", {})}, **changed.pop("model", {})}
    overrides = {"scale": "demo", "data": data, "model": model, "evaluation": evaluation, **changed}
    return load_study(STUDY, overrides)


def prepare(system: System, root: Path) -> list[Path]:
    """All parts of the prepared data, in order."""
    folders = []
    for part in system.settings.parts():
        (root / part.id).mkdir(parents=True)
        preparation.prepare(part, [root / need.id for need in part.needs], root / part.id)
        folders.append(root / part.id)
    return folders


@pytest.fixture(scope="module", params=["class", "caption"])
def made(request, tmp_path_factory):
    """Study, system and prepared data of pictures with classes, and with captions."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "class":
        drawings.write_classes(root / "in", each=12)
        found = study(root / "in")
    else:
        drawings.write_captions(root / "in", 24)
        text = {"architecture": {"text_dim": 64}, "model": {"text_encoder": str(ROOT / "resources/rdt-demo-t5")}}
        found = study(root / "in", data={"condition": "caption", "text_length": 16}, **text)
    system = load_system(found.settings)
    return found, system, prepare(system, root / "parts")


def power_cut() -> None:
    """Ends a process at any moment."""
    raise KeyboardInterrupt


def network(system: System) -> torch.nn.Module:
    """With all weights random: the last layer, too, which training begins with as zeros."""
    torch.manual_seed(0)
    model = system.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


# --- what the trainer needs ------------------------------------------------------------------------------------------


def test_a_fake_batch_is_like_a_real_one(made):
    _, system, folders = made
    samples = system.samples(folders, train=True)
    real = default_collate([samples[Draw(0, 0, 0, index)] for index in range(3)])
    fake = system.fake_batch(3)
    assert {name: (value.shape, value.dtype) for name, value in fake.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }


def test_what_a_corrected_network_reached_before_is_evaluated_again(made, monkeypatch):
    """The evaluation of a base model has another name, and finished runs another objective."""
    found = made[0]
    run = expand(found, "dit")[0]
    before, objective, version = run.base, run.objective, run.settings.network_version()
    monkeypatch.setattr(type(run.settings), "network_version", lambda _: version + 1)
    again = expand(found, "dit")[0]
    assert again.base != before and again.objective == objective + 1


def test_the_steps_of_epochs_are_known_once_the_data_is_prepared(made, tmp_path):
    found, system, folders = made
    epochs = found.training.model_copy(update={"steps": None, "epochs": 3})
    run = expand(found.model_copy(update={"training": epochs}), "dit")[0].with_axes(batch=4, accumulation=1)
    parts = shutil.copytree(folders[0].parent, tmp_path / "parts")
    assert steps_ahead([run], parts) == {}
    for folder in folders:
        seal.seal(parts / folder.name)
    assert steps_ahead([run], parts) == {run.id: 3 * -(-len(system.samples(folders, train=True)) // 4)}


def test_a_step_can_be_traced(made):
    found, _, _ = made
    run = expand(found, "dit")[0]
    assert trace_step_on_cpu(run).parameters[0] == sum(p.numel() for p in load_system(run.settings).build().parameters())


def test_all_that_is_trained_gets_a_gradient(made):
    _, system, _ = made
    model = network(system)
    system.objective(model, system.fake_batch(4), "noise").loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_run_trains_is_interrupted_and_ends_the_same(made, tmp_path, monkeypatch):
    """With the average of its weights, whatever the network is told."""
    found, _, folders = made
    changed = found.training.model_copy(update={"steps": 6, "checkpoint_every": 3, "preview_every": 3, "ema": 0.9})
    run = expand(found.model_copy(update={"training": changed}), "dit")[0]
    run = run.with_axes(batch=4, accumulation=2)

    def trainer(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)
        return Trainer(run, load_system(run.settings), {}, folders, folder, CPU, CpuMeter(Budget("any", 1.0, emulated=True)))

    whole = trainer(tmp_path / "whole")
    assert whole.train() == "completed" and whole.finish() == "model.safetensors"
    assert (tmp_path / "whole/previews/step-00000003/samples.png").is_file()
    first = trainer(tmp_path / "parts")
    record = first._record
    monkeypatch.setattr(first, "_record", lambda step, *rest: record(step, *rest) if step < 4 else power_cut())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer(tmp_path / "parts")
    assert second.start == 3 and second.train() == "completed"
    second.finish()
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_traced_step_is_the_real_step(precision):
    """Within 0.5 % of what torch's profiler sees the demo's network allocate on a CPU."""
    axes = {"batch": 64, "accumulation": 2, "precision": precision, "training.ema": 0.0}
    (run,) = expand(load_study(STUDY, {"sweep": axes, "include": [], "baseline": {"strategy": "full"}}), "dit")
    assert allocated_peak(trace_step_on_cpu(run)) == pytest.approx(peak_of_step(run), rel=0.005)


def test_adapters_on_released_weights(tmp_path):
    """The released embedder is trained by no adapter, attention and modulation of every block are."""
    drawings.write_classes(tmp_path / "in", each=2)
    path = tmp_path / "model.safetensors"
    save_file(System(study(tmp_path / "in").settings).build().state_dict(), path)
    attention = [f"transformer.transformer_blocks.*.attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out")]
    strategies = {"full": {"train": {"full": None, "lora": attention}}}
    found = study(tmp_path / "in", model={"weights": str(path)}, strategies=strategies)
    run = expand(found, "dit")[0]
    system = load_system(run.settings)
    model = for_training(system, run, {"weights": path}, CPU)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 4 * 2 and all("lora" in name for name in trained)
    system.objective(model, system.fake_batch(2), "noise").loss.backward()


def test_variances_are_a_second_part_of_the_loss(tmp_path):
    drawings.write_classes(tmp_path / "in", each=2)
    system = load_system(study(tmp_path / "in", architecture={"learn_sigma": True}).settings)
    objective = system.objective(network(system), system.fake_batch(2), "noise")
    assert set(objective.parts) == {"mse", "vlb"} and system.objectives == ("noise",)
    assert float(objective.loss.detach()) == pytest.approx(float(sum(objective.parts.values())), rel=1e-5)


def test_a_run_from_scratch_begins_where_its_seed_says(made, tmp_path):
    """And its evaluation reads what it trained, not where it began."""
    found, system, _ = made
    run = expand(found, "dit")[0]
    begun = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        begun.append(for_training(system, run, {}, CPU))
    first, same, other = (dict(model.named_parameters()) for model in begun)
    name = "transformer.transformer_blocks.0.attn1.to_q.weight"
    assert torch.equal(first[name], same[name]) and not torch.equal(first[name], other[name])
    save_trained(begun[2], trained_of(begun[2]), tmp_path)
    again = for_evaluation(system, "fp32", {}, tmp_path, CPU)
    assert torch.equal(dict(again.named_parameters())[name], other[name])
    assert set(load_file(tmp_path / "model.safetensors")) == set(begun[2].state_dict())


def test_adapters_need_weights(made):
    found, _, _ = made
    with pytest.raises(UserError, match="adapters on random weights learn little"):
        study(Path(found.data.root), strategies={"full": {"train": {"lora": ["transformer"], "full": None}}})


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_draws_a_grid_and_gives_every_metric(made, tmp_path):
    _, system, folders = made
    with torch.inference_mode():
        evaluation = system.evaluate(network(system).eval(), folders, tmp_path, CPU)
    assert list(evaluation.metrics) == [metric.name for metric in system.settings.metrics()]
    assert all(np.isfinite(value) for value in evaluation.metrics.values())
    assert "what perfect samples would have" in evaluation.notes["real held-out images have"]
    with Image.open(tmp_path / "samples.png") as grid:
        assert grid.height == 2 * 66 and grid.width > 2 * 66


def test_a_preview_is_a_grid_and_a_loss(made, tmp_path):
    _, system, folders = made
    with torch.no_grad():
        numbers = system.preview(network(system).eval(), folders, tmp_path, CPU)
    assert (tmp_path / "samples.png").is_file() and np.isfinite(numbers["loss"])


def test_samples_are_the_same_every_time_however_many_at_once(made):
    _, system, folders = made
    samples, model = system.samples(folders, train=False), network(system).eval()
    wished = in_turn(distinct(samples, read_list(folders[0]), 2), 5)
    how = system.settings.evaluation
    one, other = (draw(model, samples, wished, how.model_copy(update={"batch": batch}), CPU) for batch in (5, 2))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one[0], one[2])


def test_guidance_asks_for_what_is_told(made):
    """With guidance 1 the network is never asked without a condition."""
    _, system, folders = made
    samples, model, seen = system.samples(folders, train=False), network(system).eval(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[2:]))
    wished = in_turn(distinct(samples, read_list(folders[0]), 2), 2)
    for guidance, passes in ((1.0, 3), (2.0, 6)):
        seen.clear()
        draw(model, samples, wished, system.settings.evaluation.model_copy(update={"guidance": guidance}), CPU)
        assert len(seen) == passes
    nothing = default_collate([samples.told_nothing()] * 2)
    assert all(torch.equal(given, told) for given, told in zip(seen[1], nothing.values(), strict=True))


def test_the_held_out_loss_of_a_fresh_network_is_the_noise(made):
    """It predicts none, so that its error is the square of what was drawn: 1 on average."""
    _, system, folders = made
    assert loss(system.build().eval(), system.samples(folders, train=False), 6, 4, CPU) == pytest.approx(1, abs=0.1)


# --- the judge -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A judge of red and blue fields, and the folder of the pictures."""
    root = tmp_path_factory.mktemp("judge")
    drawings.write_classes(root / "in", each=12)
    system = load_system(study(root / "in").settings)
    return prepare(system, root / "parts"), system


def test_the_judge_tells_the_classes_apart_and_far_from_near(judged):
    (images, _, folder), system = judged
    assert json.loads((folder / FACTS).read_text())["accuracy"] == 1.0
    judge = TrainedJudge(folder, system.settings.data.judge.size, CPU)
    root, told, _ = read_list(images)
    real = torch.stack(
        [torch.from_numpy(np.array(Image.open(root / one.file).convert("RGB").resize((32, 32)))) for one in told]
    )
    verdict = judge(real.permute(0, 3, 1, 2))
    assert verdict.labels.tolist() == [one.label for one in told]
    noise = judge(torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8))
    near, far = (frechet_distance(moments(found.features), judge.trained) for found in (verdict, noise))
    assert far > 10 * near


def test_the_judge_is_the_same_every_time(judged, tmp_path):
    (images, _, folder), system = judged
    torch.manual_seed(5)
    preparation.prepare(system.settings.parts()[2], [images], tmp_path)
    one, other = load_file(folder / "judge.safetensors"), load_file(tmp_path / "judge.safetensors")
    assert all(torch.equal(value, other[name]) for name, value in one.items())


# --- settings and what is missing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_all_runs_of_the_study_share_their_data(scale):
    runs = expand(load_study(STUDY, {"scale": scale}), "dit-images")
    assert len({tuple(part.id for part in run.settings.parts()) for run in runs}) == 1


def test_the_demo_needs_nothing_from_outside_and_full_says_what_it_lacks():
    assert load_system(load_study(STUDY).settings).missing() == []
    full = load_study(STUDY, {"scale": "full", "data": {"root": "nowhere"}})
    lines = load_system(full.settings).missing()
    assert len(lines) == 3 and "nowhere" in lines[0] and "hf download facebook/DiT-XL-2-256" in lines[1]


def test_a_coco_folder_without_annotations_is_told(tmp_path):
    drawings.write_coco(tmp_path, "train2017")
    shutil.rmtree(tmp_path / "annotations")
    full = load_study(STUDY, {"scale": "full", "data": {"root": str(tmp_path)}})
    assert "instances_train2017.json is not there" in load_system(full.settings).missing()[0]


def test_more_classes_than_rows_are_refused(tmp_path):
    drawings.write_classes(tmp_path / "in", each=2)
    system = load_system(study(tmp_path / "in", architecture={"classes": 1}).settings)
    folders = prepare(system, tmp_path / "parts")
    with pytest.raises(UserError, match=r"2 classes, model\.architecture\.classes is 1"):
        system.samples(folders, train=True)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {"architecture": {"patch": 3}}}, "patch = 3 does not divide latent_size"),
        ({"model": {"architecture": {"classes": 5}}}, "there are ten digits"),
        ({"data": {"size": 30}}, "no multiple of model.architecture.latent_size"),
        ({"model": {"architecture": {"head_dim": 3, "heads": 1}}}, "must be a multiple of 4"),
    ],
)
def test_settings_that_do_not_fit_are_told(changed, words):
    with pytest.raises(UserError, match=words):
        load_study(STUDY, {"scale": "demo", **changed})


def test_a_row_may_have_any_name(tmp_path):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    save_grid(tmp_path / "grid.png", [("数字\n<b>", images), ("x" * 400, images[:1])])
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width < 400
