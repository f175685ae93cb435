"""The rdt system: what the trainer gets of it, its caches, its metrics; one effective batch is one step by every road."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from accelerate.state import AcceleratorState
from allocations import peak_of_step
from episodes import write_episode
from pydantic import ValidationError
from small_rdt import SENTENCES, SIGLIP, STUDY, T5, TOWER, changes, make_encoders, prepare, spiece
from torch.utils.data import default_collate
from transformers import SiglipConfig, SiglipModel, T5Config, T5Model

from ablation.errors import UserError
from ablation.settings import LoraSettings
from ablation.study import Strategy, load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.rdt.data.episode import recording
from ablation.systems.rdt.data.images import square
from ablation.systems.rdt.encoders import ImageEncoder
from ablation.systems.rdt.metrics import sample_errors
from ablation.systems.rdt.robots import ROBOTS
from ablation.systems.t5 import TextEncoder
from ablation.training.accelerator import make_accelerator
from ablation.training.step import TrainingStep
from ablation.training.strategy import apply_strategy, count_parameters
from ablation.vram.replay import allocated_peak
from ablation.vram.step import trace_step_on_cpu

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return make_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def system(encoders):
    return load_system(expand(load_study(STUDY, changes(encoders)), "rdt")[0].settings)


@pytest.fixture(scope="module")
def prepared(system, tmp_path_factory):
    return prepare(system.settings, tmp_path_factory.mktemp("prepared"))


# --- samples ---------------------------------------------------------------------------------------------------------


def test_without_a_simulation_no_robot_is_driven(encoders, tmp_path):
    simulated = load_study(STUDY, changes(encoders)).settings
    data = simulated.data.model_copy(update={"source": "aloha", "root": str(tmp_path)})
    recorded = simulated.model_copy(update={"data": data})
    assert [metric.name for metric in simulated.metrics()][:2] == ["success", "distance"]
    assert [metric.name for metric in recorded.metrics()] == ["sample_mse", "sample_l2err"]


def test_a_fake_batch_is_like_a_real_one(system, prepared):
    samples = system.samples(prepared, train=True)
    real = default_collate([samples[Draw(0, 0, 0, index)] for index in range(3)])
    fake = system.fake_batch(3)
    assert {name: (value.shape, value.dtype) for name, value in fake.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }


def test_held_out_episodes_are_never_trained_on(system, prepared):
    train, test = (system.samples(prepared, train=train) for train in (True, False))
    names = [{episode.name for episode in samples.episodes} for samples in (train, test)]
    assert names[0].isdisjoint(names[1]) and len(names[0]) == 4 and len(names[1]) == 2
    assert len(train) == sum(episode.steps - episode.first for episode in train.episodes)


def test_all_runs_of_the_study_share_their_data():
    for scale in ("demo", "full"):
        ids = {tuple(part.id for part in run.settings.parts()) for run in expand(load_study(STUDY, {"scale": scale}), "rdt")}
        assert len(ids) == 1


def test_embeddings_are_what_the_encoders_give(system, prepared, encoders):
    samples = system.samples(prepared, train=False)
    sample, (episode, step) = samples[Draw(0, 0, 0, 7)], samples.place(7)
    episode = samples.episodes[episode]
    text = TextEncoder(Path(encoders["text"]), CPU)(episode.instruction)
    assert sample["lang_mask"].sum() == len(text) > 5
    assert torch.equal(sample["lang_tokens"][: len(text)], text) and not sample["lang_tokens"][len(text) :].any()
    with recording(episode.path, ROBOTS["one_arm"]) as opened:
        images = [opened.image("exterior", episode.first + step - 1 + age, "bgr") for age in range(2)]
    squares = torch.stack([square(image, 32, (127, 127, 127)) for image in images])
    expected = ImageEncoder(Path(encoders["image"]), CPU)(squares)
    # Among other images in a batch an image gives the same up to rounding in fp32, and now and then a last bit of fp16.
    torch.testing.assert_close(sample["img_tokens"].view(2, 3, 16, 16)[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_training_reads_the_cache_and_no_encoder(system, prepared, encoders, tmp_path):
    """Nor the episodes' images: a cache that is there needs nothing else."""
    moved = {kind: tmp_path / kind for kind in encoders}
    samples = system.samples(prepared, train=True)
    before = samples[Draw(0, 0, 0, 3)]
    for kind, folder in encoders.items():
        shutil.move(folder, moved[kind])
    try:
        again = system.samples(prepared, train=True)[Draw(0, 0, 0, 3)]
    finally:
        for kind, folder in encoders.items():
            shutil.move(moved[kind], folder)
    assert all(torch.equal(before[name], again[name]) for name in before)


@pytest.mark.parametrize("bad", ["refuse", "skip"])
def test_a_corrupt_episode_of_ones_own_is_refused_or_named(tmp_path, encoders, bad):
    data = {"source": "aloha", "root": str(tmp_path / "data"), "robot": "agilex", "min_steps": 5, "bad": bad}
    settings = load_study(STUDY, changes(encoders, data=data)).settings
    for number in range(4):
        write_episode(tmp_path / f"data/{number}.hdf5", seed=number)
    broken = tmp_path / "data/1.hdf5"
    broken.write_bytes(broken.read_bytes()[:3000])
    if bad == "refuse":
        with pytest.raises(UserError, match=r"1 of 4 episodes are bad(?s:.*)1\.hdf5: unreadable file"):
            prepare(settings, tmp_path / "parts")
        return
    folders = prepare(settings, tmp_path / "parts")
    assert "1.hdf5,unreadable file" in (folders[0] / "left_out.csv").read_text()
    found = [load_system(settings).samples(folders, train=train).episodes for train in (True, False)]
    assert sorted(episode.name for part in found for episode in part) == ["0", "2", "3"]


# --- one effective batch by three roads ------------------------------------------------------------------------------


def gradients(system, prepared, strategy: Strategy, batch: int, accumulation: int) -> tuple[dict[str, torch.Tensor], float]:
    """The gradients of one step over the same 16 samples, and its loss."""
    AcceleratorState._reset_state(True)
    torch.manual_seed(0)
    model = system.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = apply_strategy(model, strategy, 4, LoraSettings(dropout=0)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    accelerator, kept = make_accelerator("fp32", CPU), {}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    settings = system.settings.model_copy(update={"training": system.settings.training.model_copy(update={"clip": None})})
    axes = {"strategy": "A", "rank": 4, "batch": batch, "accumulation": accumulation, "precision": "fp32", "gpus": 1, "seed": 0}
    training_step = TrainingStep(Run("run", "study", axes, strategy, settings), system, model, accelerator)
    training_step.optimizer.optimizer.register_step_pre_hook(
        lambda *_: kept.update({name: parameter.grad.clone() for name, parameter in trained.items()})
    )
    samples = system.samples(prepared, train=True)
    drawn = [samples[Draw(0, 0, 0, index)] for index in range(16)]
    batches = [default_collate(drawn[start : start + batch]) for start in range(0, 16, batch)]
    values = training_step(batches, accumulation, lambda _: None)
    AcceleratorState._reset_state(True)
    return kept, float(values["loss"])


@pytest.mark.parametrize("train", [{"full": ["*"]}, {"lora": ["*"]}], ids=["full", "lora"])
def test_three_roads_give_the_same_gradients(system, prepared, train):
    """Up to the order of sums in fp32: the roads add the same 16 terms in other orders, each with a rounding of 6e-8."""
    strategy = Strategy.model_validate({"train": train, "lr": 1e-3})
    whole, loss = gradients(system, prepared, strategy, 16, 1)
    largest = max(gradient.abs().max() for gradient in whole.values())
    assert largest > 0
    for batch, accumulation in ((8, 2), (2, 8)):
        split, other = gradients(system, prepared, strategy, batch, accumulation)
        assert other == pytest.approx(loss, rel=1e-6)
        for name, gradient in whole.items():
            torch.testing.assert_close(split[name], gradient, rtol=1e-4, atol=float(2e-6 * largest))


def test_the_objective_draws_nothing(system, prepared):
    samples, model = system.samples(prepared, train=True), system.build()
    torch.nn.init.normal_(model.model.final_layer.ffn_final.fc2.weight)
    batch = default_collate([samples[Draw(0, 0, 0, index)] for index in range(4)])
    state = torch.get_rng_state()
    losses = [system.objective(model, batch, "actions").loss.item() for _ in range(2)]
    assert losses[0] == losses[1] > 0 and torch.equal(torch.get_rng_state(), state)


# --- memory and parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "parameters"), [(4, 4_087_808), (8, 8_175_616), (16, 16_351_232), (64, 65_404_928)])
def test_lora_on_every_linear_layer_of_the_released_size(rank, parameters):
    study = load_study(STUDY, {"scale": "full"})
    with torch.device("meta"):
        model = apply_strategy(load_system(study.settings).build(), study.strategies["lora"], rank, study.lora)
    assert count_parameters(model) == {"total": 1_228_319_872 + parameters, "trainable": parameters}


def test_full_fine_tuning_trains_everything():
    study = load_study(STUDY, {"scale": "full"})
    with torch.device("meta"):
        model = apply_strategy(load_system(study.settings).build(), study.strategies["full"], None, study.lora)
    assert count_parameters(model) == {"total": 1_228_319_872, "trainable": 1_228_319_872}


@pytest.mark.parametrize(
    ("strategy", "precision", "batch", "accumulation"),
    [("full", "fp32", 16, 1), ("full", "bf16", 8, 2), ("lora", "fp32", 2, 8), ("lora", "bf16", 16, 1)],
)
def test_the_traced_step_is_the_real_step(strategy, precision, batch, accumulation):
    """Within 0.5 % of what torch's profiler sees the demo's network allocate on a CPU."""
    axes = {"strategy": strategy, "precision": precision, "batch": batch, "accumulation": accumulation, "gpus": 1}
    (run,) = expand(load_study(STUDY, {"sweep": axes}), "rdt")
    assert allocated_peak(trace_step_on_cpu(run)) == pytest.approx(peak_of_step(run), rel=0.005)


# --- metrics and evaluation ------------------------------------------------------------------------------------------


def test_sample_errors_by_hand():
    """Two actions of three entries, of which the robot has two; a second sample without error."""
    actions = torch.tensor([[[1.0, 2.0, 9.0], [0.0, 4.0, 9.0]]] * 2)
    predicted = actions.clone()
    predicted[0] = torch.tensor([[1.5, 2.0, 0.0], [0.0, 3.0, 0.0]])
    mask = torch.tensor([[[1.0, 1.0, 0.0]]] * 2)
    norm = torch.tensor([[0.999, 3.999, 0.0]] * 2)
    found = sample_errors(predicted, actions, mask, norm)
    torch.testing.assert_close(found["sample_mse"], torch.tensor([(0.25 + 1.0) / 4, 0.0]))
    torch.testing.assert_close(found["sample_l2err"], torch.tensor([(0.5 / 1 + 1 / 4) / 4, 0.0]))


def test_evaluation_is_repeatable_and_tells_the_items_apart(system, prepared, tmp_path):
    model = system.build().eval()
    torch.nn.init.normal_(model.model.final_layer.ffn_final.fc2.weight, std=0.01)
    found, again = (system.evaluate(model, prepared, tmp_path, CPU) for _ in range(2))
    assert found == again
    assert set(found.metrics) == {metric.name for metric in system.settings.metrics()}
    assert {item["item"] for item in found.items} == {"Reach for the red block."}
    mean = np.mean([item["sample_mse"] for item in found.items if "sample_mse" in item])
    assert found.metrics["sample_mse"] == pytest.approx(mean, rel=0.5) and found.metrics["success"] == 0
    assert (tmp_path / "actions.png").stat().st_size > 1000 and len(list(tmp_path.glob("rollout-*.png"))) == 1


def test_a_network_that_knows_the_actions_has_no_error(system, prepared, tmp_path):
    """Through the whole evaluation: a network that returns the recorded actions is judged to be perfect."""
    samples = system.samples(prepared, train=False)

    class Knowing(torch.nn.Module):
        def forward(self, noisy, steps, observation):
            states = [s["state"][0, :6] for s in known]
            nearest = [min(range(len(known)), key=lambda k: (states[k] - state[0, :6]).norm()) for state in observation.state]
            return torch.stack([known[k]["actions"] for k in nearest])

    known = [samples[Draw(0, 0, 0, index)] for index in range(len(samples))]
    found = system.preview(Knowing(), prepared, tmp_path, CPU)
    assert found["sample_mse"] < 1e-10 and found["sample_l2err"] < 1e-4 and (tmp_path / "actions.png").is_file()


# --- encoders --------------------------------------------------------------------------------------------------------


def test_sentences_are_split_as_sentencepiece_does(encoders):
    folder = Path(encoders["text"])
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer = TextEncoder(folder, CPU).tokenizer
    for sentence in ["", *SENTENCES, "A word unseen: zebra!"]:
        assert tokenizer(sentence).input_ids == [*reference.encode(sentence), 1]


def test_the_unused_halves_of_released_files_are_left_out(tmp_path):
    """Google's T5 holds a decoder, SigLIP a text tower; the networks read are those that were saved."""
    torch.manual_seed(1)
    t5, siglip = (
        T5Model(T5Config(**T5)),
        SiglipModel(SiglipConfig(text_config={**TOWER, "vocab_size": 9}, vision_config=SIGLIP)),
    )
    for model, name in ((t5, "t5"), (siglip, "siglip")):
        model.save_pretrained(str(tmp_path / name))
    spiece(tmp_path / "t5")
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = siglip.eval().vision_model(image / 127.5 - 1).last_hidden_state
    torch.testing.assert_close(ImageEncoder(tmp_path / "siglip", CPU)(image).float(), expected, atol=2e-3, rtol=1e-3)
    encoder = TextEncoder(tmp_path / "t5", CPU)
    with torch.no_grad():
        ids = torch.tensor([encoder.tokenizer(SENTENCES[0]).input_ids])
        expected = t5.eval().encoder(ids).last_hidden_state[0]
    torch.testing.assert_close(encoder(SENTENCES[0]).float(), expected, atol=2e-3, rtol=1e-3)


def test_a_folder_that_is_no_encoder_is_one_clear_error(tmp_path, encoders):
    with pytest.raises(UserError, match=r"config\.json is not there\n(?s:.*)hf download google/siglip"):
        ImageEncoder(tmp_path, CPU)
    swapped = tmp_path / "swapped"
    shutil.copytree(encoders["image"], swapped)
    shutil.copy(Path(encoders["text"]) / "model.safetensors", swapped)
    with pytest.raises(UserError, match=r"swapped: is no SiglipVisionModel: lacks \d+ parameters"):
        ImageEncoder(swapped, CPU)
    (swapped / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(UserError, match="swapped: cannot be read as SiglipVisionModel"):
        ImageEncoder(swapped, CPU)
    (swapped / "model.safetensors").unlink()
    torch.save({}, swapped / "pytorch_model.bin")  # a pickle is never opened
    with pytest.raises(UserError, match="swapped: cannot be read as SiglipVisionModel"):
        ImageEncoder(swapped, CPU)
    no_words = tmp_path / "no_words"
    shutil.copytree(encoders["text"], no_words, ignore=shutil.ignore_patterns("spiece.model", "tokenizer*"))
    with pytest.raises(UserError, match="no_words: has no tokenizer"):
        TextEncoder(no_words, CPU)


def test_the_plan_says_what_is_missing_and_what_does_not_fit(encoders, tmp_path):
    study = changes(
        encoders,
        data={"text_length": 32, "image_size": 64},
        model={"encoders": {**encoders, "text": str(tmp_path)}, "architecture": {"img_dim": 17}},
    )
    lines = load_system(load_study(STUDY, study).settings).missing()
    assert any(line.startswith(f"model.encoders.text: {tmp_path}/config.json is not there") for line in lines)
    for wrong in ("16, model.architecture.img_dim says 17", "32, data.image_size says 64"):
        assert f"model.encoders.image: {encoders['image']} gives {wrong}" in lines
    full = load_system(load_study(STUDY, {"scale": "full", "data": {"root": str(tmp_path)}}).settings).missing()
    assert [line.split(":")[0] for line in full] == ["data", "model.encoders.text", "model.encoders.image", "weights"]
    assert all("hf download" in line for line in full[1:])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"data": {"robot": "aloha"}}, "the simulated robot"),
        ({"data": {"text_length": 33}}, "lang_length = 32"),
        ({"model": {"architecture": {"action_dim": 14}}}, "128 entries"),
        ({"model": {"architecture": {"images": {"cameras": 2}}}}, "there are 3"),
        ({"evaluation": {"execute": 17}}, "horizon 16"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, words):
    with pytest.raises((UserError, ValidationError), match=words):
        load_study(STUDY, wrong)


def test_the_plan_warns_of_a_large_cache(tmp_path, caplog):
    write_episode(tmp_path / "a.hdf5", steps=20)
    (tmp_path / "broken.hdf5").write_bytes(b"")
    study = {"scale": "full", "data": {"root": str(tmp_path), "augment": {"versions": 200}}}
    lines = load_system(load_study(STUDY, study).settings).missing()
    assert not any(line.startswith("data") for line in lines)
    gib = 20 * 3 * 201 * 729 * 1152 * 2 / 2**30
    assert f"will take {gib:.0f} GiB of disk" in caplog.text and gib > 10
