"""The card beside what a run trained: read by the Hub's own reader, and its code run as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small_vggt
import torch
from conftest import ROOT
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from ablation.modelcard import card, write_card
from ablation.private import Private
from ablation.study import load_study
from ablation.systems import SYSTEMS, load_system
from ablation.training.model import for_training
from ablation.training.strategy import save_trained
from ablation.yamlfile import dump_yaml

MANIFEST = {
    "code": {"commit": "0123abcd", "changed": True}, "python": "3.11", "packages": {"peft": "0.21.2"}, "cpu": "A | CPU",
    "device": {"type": "cpu", "threads": 1}, "times": {"begin": "2026-11-01T10:00:00.000+00:00", "end": None, "seconds": 2.5},
}  # fmt: skip


def record(saved, **more):
    metrics = {"metrics": {"depth_mae": 0.5, "depth_absrel": float("nan")}, "metrics_before": {"depth_mae": 1.25}}
    items = {"items": [{"item": "yard|1\n", "depth_mae": 0.5}], "items_before": [{"item": "yard|1\n", "depth_mae": 1.25}]}
    sizes = {"parameters": {"total": 2000, "trainable": 10}, "memory": {"kind": "cpu", "peak_allocated_gib": 0.25}, "steps": 4}
    return {"outcome": "completed", "saved": saved, **metrics, **items, **sizes, "notes": {"alignment": "median"}, **more}


@pytest.fixture
def trained(tmp_path, vggt, tiny):
    """A run in ``run``, whose adapter is not what it began as; the run and its root."""
    save_file(vggt.state_dict(), tmp_path / "weights.safetensors")
    run = small_vggt.run_of(tmp_path, tiny)
    model = for_training(load_system(run.settings), run, {"weights": tmp_path / "weights.safetensors"}, torch.device("cpu"))
    values = {name: torch.randn_like(value) for name, value in model.named_parameters() if value.requires_grad}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.yaml").write_text(dump_yaml(run.training_view))
    assert save_trained(model, values, tmp_path / "run") == "adapter"
    assert not (tmp_path / "run/adapter/README.md").exists()  # PEFT's form, with nothing filled in
    return run, tmp_path


def test_the_hub_reads_its_head_and_people_the_rest(trained, monkeypatch):
    run, root = trained
    monkeypatch.chdir(root)
    path = write_card(run, Path("run"), record("adapter"), MANIFEST)
    assert path == Path("run/adapter/README.md")
    read = ModelCard.load(path)
    assert (read.data.library_name, read.data.pipeline_tag, read.data.base_model) == ("peft", "depth-estimation", None)
    assert read.data.tags == ["vggt", "lora", "ablation"] and read.data.model_name == run.id
    (result,) = read.data.eval_results  # NaN is none
    assert (result.metric_type, result.metric_value, result.dataset_type, result.dataset_split) == (
        "depth_mae",
        0.5,
        "eth3d",
        "test",
    )
    lines = read.content.splitlines()
    assert "| depth MAE, m | 1.250 | 0.500 |" in lines and "| yard\\|1 | 1.250 | 0.500 |" in lines
    assert "- **Commit of the workflow:** 0123abcd with local changes" in lines and "- peft 0.21.2" in lines
    assert "- **Trained parameters:** 10 of 2,000" in lines and "lr: 0.001" in read.content and "nan" not in read.content


def test_its_code_loads_the_adapter_by_peft(trained):
    """In another process, as a reader would; the project stands beside the run's folder."""
    run, root = trained
    content = str(card(run, Path("run"), record("adapter"), MANIFEST))
    (root / "run/adapter/README.md").write_text(content)
    (root / "scripts").symlink_to(ROOT / "scripts")
    code = re.search(r"```python\n(.*?)```", content, re.DOTALL)[1]
    after = "\nfrom peft import get_peft_model_state_dict\nfrom safetensors.torch import save_file\n"
    after += "save_file({n: v.contiguous() for n, v in get_peft_model_state_dict(model).items()}, 'loaded.safetensors')\n"
    done = subprocess.run([sys.executable, "-c", code + after], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, saved = load_file(root / "loaded.safetensors"), load_file(root / "run/adapter/adapter_model.safetensors")
    assert set(loaded) == set(saved) and all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_weights_trained_in_full_have_one_beside_them_and_nothing_has_none(trained, tiny):
    _, root = trained
    run = small_vggt.run_of(root, tiny, how={"train": {"full": ["camera_head"]}})
    assert run.rank is None
    path = write_card(run, root / "run", record("model.safetensors"), {})
    read = ModelCard.load(path)
    assert path == root / "run/README.md" and read.data.library_name is None and read.data.tags == ["vggt", "ablation"]
    assert "load_trained(base, folder)" in read.content and "peft" not in read.content.lower()
    assert write_card(run, root / "run", {"outcome": "diverged", "metrics": {}}, {}) is None


def test_it_names_a_release_with_its_licence_where_the_weights_lie_under_its_name(tiny, tmp_path):
    run = small_vggt.run_of(tmp_path / "VGGT-1B", tiny)
    read = ModelCard(str(card(run, Path("run"), record("adapter"), {})))
    assert read.data.base_model == "facebook/VGGT-1B" and read.data.to_dict()["base_model_relation"] == "adapter"
    assert "facebook/VGGT-1B: non-commercial use only" in read.content


def test_no_path_of_its_author_is_in_it(tiny):
    run = small_vggt.run_of(Path("/home/ann/VGGT-1B"), tiny)
    content = str(card(run, Path("/home/ann/results/run"), record("adapter", notes={"from": "/home/ann/x"}), MANIFEST))
    assert "ann" not in content.replace("channels", "") and "elsewhere/weights.safetensors" in content


def test_every_release_that_cards_name_is_in_the_documentation():
    told = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    named = [name for study in (ROOT / "config/studies").glob("*.yaml") for name in load_study(study, {}).hub().releases]
    assert len(named) >= len(SYSTEMS) and all(name in told for name in named)


def test_paths_are_replaced_wherever_they_stand(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/scratch/users/ann")
    settings = {
        "root": "/data/eth3d",
        "weights": ["/a/eth3d", "../ann/eth3d", "~/x/model.bin"],
        "kept": ["data/eth3d", "a/b", "/"],
    }
    private = Private(settings)
    assert private.stand_ins == {
        "../ann/eth3d": "elsewhere/eth3d", "/a/eth3d": "elsewhere-2/eth3d", "/data/eth3d": "elsewhere-3/eth3d",
        "~/x/model.bin": "elsewhere/model.bin",
    }  # fmt: skip
    assert private.value(settings)["kept"] == settings["kept"]
    said = f"/data/eth3d/hall: gone; /data/eth3d2 {tmp_path}/results /scratch/users/ann/x /home/bob/y /Users/bob, /root/z"
    assert private.text(said) == "elsewhere-3/eth3d/hall: gone; /data/eth3d2 ./results ~/x ~/y ~, ~/z"
    assert private.value(json.loads(json.dumps({"a": [said]}))) == {"a": [private.text(said)]}
