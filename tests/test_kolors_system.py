"""Kolors as a system: its settings fit together, its weights are read strictly, the predictor knows its samples' shapes."""

import json
import shutil
from pathlib import Path

import layouts
import pytest
import small_kolors as small
import torch
from conftest import ROOT
from pydantic import ValidationError
from torch.utils.data import default_collate

from ablation.errors import UserError
from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems.base import Draw
from ablation.systems.kolors.architecture import Architecture
from ablation.systems.kolors.data.latents import load_vae, write_latents
from ablation.systems.kolors.data.layouts import image_root, read_layouts, write_layouts
from ablation.systems.kolors.data.settings import Data
from ablation.systems.kolors.settings import Model, SystemSettings
from ablation.training.model import adapted, pretrained
from ablation.training.precision import cast_frozen
from ablation.training.strategy import count_parameters

STUDY = ROOT / "config/studies/kolors-3x4090.yaml"
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Networks with random weights as they are released: halved, the language model in several files with an index."""
    folder, model = tmp_path_factory.mktemp("weights"), small.network(seed=3)
    model.unet.half().save_pretrained(folder / "unet", variant="fp16")
    model.text_encoder.half().save_pretrained(folder / "text_encoder", variant="fp16", max_shard_size="4KB")
    return folder


@pytest.fixture
def weights(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "weights")


def loaded(weights):
    return pretrained(small.system(), {name: weights / name for name in ("unet", "text_encoder")})


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unet": {"channels": [320, 640]}}, "an entry a level each"),
        ({"unet": {"transformers": [0, 2, 0]}}, "the last level must have some"),
        ({"unet": {"heads": [5, 10, 21]}}, "channels = 1280 must be a multiple of its heads = 21"),
        ({"text_encoder": {"groups": 3}}, "groups = 3 does not divide heads = 32"),
        ({"adapter": {"heads": 5}}, "heads = 5 does not divide bottleneck = 192"),
        ({"heads": {"feature_step": 1100}}, "less than 1100"),
    ],
)
def test_sizes_must_fit_together(changes, words):
    with pytest.raises(ValidationError, match=words):
        Architecture.model_validate(changes)


def test_pictures_and_captions_must_fit_the_networks():
    with pytest.raises(ValidationError, match="resolution = 120 must be a multiple of 32"):
        small.settings(data=Data(resolution=120))
    with pytest.raises(ValidationError, match="positions = 64 is less than 65"):
        small.settings(data=Data(resolution=128, text_length=62))


def test_counts_that_claims_can_be_about():
    facts = SystemSettings(system="kolors", training={"steps": 1}).facts()
    assert facts["unet_params"]() == 2_579_458_820
    assert facts["unet_gb"]() == pytest.approx(5.16, abs=0.01)
    assert facts["text_encoder_gb"]() == pytest.approx(12.49, abs=0.01)
    assert facts["adapter_gb"]() == pytest.approx(0.097, abs=0.001)
    assert small.settings().facts()["unet_params"]() == 2_579_458_820, "a claim is never about the demo's networks"


def test_the_full_study_has_the_published_launches():
    """One card 1 x 8, three cards 1 x 3 each; ZeRO-2 on three cards alone, also with 2 each."""
    runs = expand(load_study(STUDY, {"scale": "full"}), "full")
    cells = {tuple(run.axes[axis] for axis in ("strategy", "batch", "accumulation", "gpus")) for run in runs}
    copies = {(name, 1, *launch) for name in ("baseline", "A", "B") for launch in ((8, 1), (3, 3))}
    assert cells == copies | {("C", 1, 3, 3), ("C", 2, 1, 3)}


def test_what_is_trained_at_full_size():
    """With the adapter its objectives' heads, after GILL: half of all."""
    run = expand(load_study(STUDY, {"scale": "full"}), "full")[0]
    with torch.device("meta"):
        model = adapted(small.System(run.settings), run, small.System(run.settings).build())
    trained = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"adapter", "heads"}
    assert count_parameters(model)["trainable"] == 48_372_736 + 45_211_137


def test_the_shipped_networks_are_those_of_the_demo(monkeypatch):
    monkeypatch.chdir(ROOT)
    system = small.System(load_study(STUDY, {"scale": "demo"}).settings)
    assert system.missing() == []
    model = pretrained(system, {name: Path(path) for name, path in system.settings.weight_files().items()})
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# --- weights ---------------------------------------------------------------------------------------------------------


def test_weights_as_released_are_read(saved):
    model, source = loaded(saved), small.network(seed=3)
    assert len(list((saved / "text_encoder").glob("*.safetensors"))) > 1
    for name in ("unet", "text_encoder"):
        wanted = getattr(source, name).half().state_dict()
        for key, value in getattr(model, name).state_dict().items():
            assert torch.equal(value.float(), wanted[key].float()), key
    assert model.unet.conv_in.weight.dtype == torch.float32
    assert model.text_encoder.output_layer.weight.dtype == torch.float16, "12 GB in place of 25"
    cast_frozen(model.requires_grad_(False), "fp32", small.System.fp32_modules)
    assert model(small.batch(), "generation")[0].isfinite()


def test_what_no_file_holds_starts_at_the_same_values(saved):
    """Whatever was drawn before; and what is drawn after does not depend on it."""
    torch.manual_seed(1)
    first = loaded(saved)
    torch.manual_seed(2)
    second = loaded(saved)
    before = torch.get_rng_state()
    second.start()
    assert torch.equal(torch.get_rng_state(), before)
    for part in ("adapter", "heads"):
        one, two = getattr(first, part).state_dict(), getattr(second, part).state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(not layer.out.weight.any() for layer in first.adapter.attentions.values())


def test_image_tokens_start_as_long_as_words_are(saved):
    model = loaded(saved)
    words = model.text_encoder.embedding.word_embeddings.weight.float().norm(dim=1).mean()
    torch.testing.assert_close(model.heads.images.rows.norm(dim=1), words.expand(small.SIZES.heads.images))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: shutil.rmtree(w / "unet"), "config.json is not there"),
        (lambda w: (w / "unet/diffusion_pytorch_model.fp16.safetensors").unlink(), "holds no diffusion_pytorch_model"),
        (lambda w: (w / "unet/config.json").write_text("{"), "no description of a network"),
        (lambda w: (w / "unet/config.json").write_text("[]"), "no description of a network"),
        (lambda w: edit(w / "unet/config.json", lambda c: c.update(norm_num_groups=2)), "norm_num_groups: 2 in the file, 4"),
        (lambda w: next((w / "text_encoder").glob("*-00002-*")).unlink(), "no pretrained weights here"),
        (lambda w: next((w / "text_encoder").glob("*-00002-*")).write_bytes(b"x" * 9), "cannot be read as weights"),
        (lambda w: index(w, lambda c: c.pop("weight_map")), "no index of weights"),
        (lambda w: index(w, lambda c: c["weight_map"].update({"a": "../unet/x.safetensors"})), "is no safetensors file beside"),
        (lambda w: index(w, lambda c: c["weight_map"].update({"a": "config.json"})), "is no safetensors file beside"),
    ],
)
def test_spoilt_weights_are_one_clear_error(weights, spoil, words):
    spoil(weights)
    with pytest.raises(UserError, match=words):
        loaded(weights)


def index(weights, change):
    edit(next((weights / "text_encoder").glob("*.index*.json")), change)


def test_weights_of_another_network_are_refused(weights):
    shutil.rmtree(weights / "unet")
    sizes = small.SIZES.unet.model_copy(update={"cross_dim": 20})
    other = Architecture(**{**dict(small.SIZES), "unet": sizes})
    small.System(small.settings(model=Model(architecture=other))).build().unet.save_pretrained(weights / "unet")
    (weights / "unet/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"does not fit model\.architecture\.unet\n  \d+ parameters of another shape"):
        loaded(weights)


def test_what_is_missing_is_told_before_anything_runs(weights, tmp_path):
    def missing(where):
        data = Data(source="layouts", root=str(tmp_path / "pictures"), layouts=str(tmp_path / "l.jsonl"))
        return small.System(small.settings(model=Model(weights=str(where)), data=data)).missing()

    lines = missing(tmp_path / "none")
    assert len(lines) == 3 and "unet/config.json is not there" in lines[0] and "hf download" in lines[0]
    assert "pictures is not there" in lines[1] and "l.jsonl is not there" in lines[2]
    for name in ("tokenizer", "vae", "../pictures"):
        (weights / name).mkdir()
    (tmp_path / "l.jsonl").touch()
    assert missing(weights) == []


# --- samples ---------------------------------------------------------------------------------------------------------


def test_samples_have_the_shapes_that_the_predictor_takes_them_to_have(tmp_path):
    made = layouts.some_layouts(tmp_path / "pictures", 4, (160, 130))
    listed, latents = tmp_path / "layouts", tmp_path / "latents"
    listed.mkdir(), latents.mkdir()
    write_layouts(made, tmp_path / "pictures", listed)
    vae = load_vae(layouts.save_vae(tmp_path / "model/vae"), DEVICE)
    write_latents(read_layouts(listed), image_root(listed), vae, small.SAMPLE.resolution, latents)
    layouts.save_tokenizer(tmp_path / "model/tokenizer")
    words = small.SIZES.text_encoder.model_copy(update={"vocabulary": 90})
    sizes = Architecture(**{**dict(small.SIZES), "text_encoder": words})
    system = small.system(model=Model(weights=str(tmp_path / "model"), architecture=sizes))
    samples = system.samples([listed, latents], train=True)
    real = default_collate([samples[Draw(0, 0, 0, number)] for number in range(2)])
    fake = system.fake_batch(2)
    assert {name: (value.shape, value.dtype) for name, value in fake.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }
    model = system.build()
    model.start()
    for name in system.objectives:
        assert system.objective(model, real, name).loss.isfinite()


def test_parts_are_layouts_and_their_latents():
    parts = small.system().settings.parts()
    assert [part.stage for part in parts] == ["layouts", "latents"]
    assert parts[1].settings["vae"] == "models/Kolors-diffusers/vae" and parts[1].needs == (parts[0],)
    assert {Path(path).name for path in small.settings().outside()} >= {"unet", "text_encoder", "vae", "tokenizer"}


def test_an_objective_counts_as_much_as_the_study_says():
    model, samples = small.network(), small.batch()
    changed = small.system(objectives={"captioning": 1e-3, "retrieval": 2})
    for name, weight in (("captioning", 1e-3), ("retrieval", 2), ("generation", 1)):
        plain, weighted = (system.objective(model, samples, name) for system in (small.system(), changed))
        assert torch.equal(weighted.loss, weight * plain.loss)
        assert all(torch.equal(weighted.parts[part], value) for part, value in plain.parts.items())
