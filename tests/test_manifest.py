"""The manifest of a run: complete, true, and without what is nobody's business."""

import hashlib
import json
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import launch
import pytest
import torch
from conftest import smallest
from hypothesis import given
from hypothesis import strategies as st
from small_vggt import job, prepare, run_of

from ablation.attempts import Journal
from ablation.errors import UserError
from ablation.files import write_json
from ablation.manifest import OUTSIDE, SCHEMA, files_in, inputs_of, manifest_of, read_manifest, settings_hash, without_places
from ablation.provenance import PACKAGES, code_hash, surroundings
from ablation.seal import FILE, seal
from ablation.sweep import expand
from ablation.systems.vggt.model.vggt import VGGT
from ablation.yamlfile import load_yaml

TOKEN = "hf_Sekret0Token"
USER = "alice.smith"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scene_root):
    """A run that was trained for real from the home of a user with secrets: its folder and what it read."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("homes") / USER
        home.mkdir()
        for name, value in {"HF_TOKEN": TOKEN, "WANDB_API_KEY": TOKEN, "USER": USER, "HOME": str(home)}.items():
            patch.setenv(name, value)
        for name, value in {"JOB_ID": "77", "ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "7", "JOB_PARTITION": "long"}.items():
            patch.setenv(f"SLURM_{name}", value)
        patch.setenv("SLURM_JOB_COMMENT", TOKEN)
        tiny = smallest()
        torch.manual_seed(0)
        root = prepare(scene_root, VGGT(tiny), home)
        run = run_of(root, tiny)
        data = run.settings.data.model_copy(update={"root": str(home / "scenes")})
        model = run.settings.model.model_copy(update={"weights": str(home / "weights.safetensors")})
        run = replace(run, settings=run.settings.model_copy(update={"data": data, "model": model}))
        _, folder, weights, parts = job(run, root, "run")
        for part in parts:
            seal(part)
        done = launch.train(run, folder, weights, parts)
    assert done.returncode == 0, done.stderr
    return folder, weights, parts


def test_it_says_all_that_made_the_numbers(trained):
    folder, weights, parts = trained
    found, view = read_manifest(folder / "manifest.json"), load_yaml(folder / "run.yaml")
    assert found["schema"] == SCHEMA and (found["run"], found["study"]) == (view["id"], view["study"])
    assert found["settings_sha256"] == settings_hash(view)
    assert found["settings"]["axes"] == view["axes"] and found["settings"]["strategy"] == view["strategy"]
    assert {"evaluation", "compute"} < set(found["settings"]["settings"]) and "title" not in found["settings"]["settings"]
    ((name, path),) = weights.items()
    assert found["inputs"]["weights"] == {name: {path.name: {"sha256": sha(path), "bytes": path.stat().st_size}}}
    assert found["inputs"]["data"] == {part.name: sha(part / FILE) for part in parts}
    assert found["code"]["program_sha256"] == code_hash() and set(found["packages"]) == set(PACKAGES)
    assert found["packages"]["torch"] == version("torch") and found["device"] == {"type": "cpu", "threads": 1}
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability() and found["deterministic"] is True
    assert (found["slurm_job"], found["slurm_array"], found["slurm_partition"]) == ("77", "70_7", "long")
    saved = {f"adapter/{name}" for name in ("adapter_config.json", "adapter_model.safetensors")}
    assert set(found["files"]) == {"history.csv", *saved}
    assert all(sha(folder / name) == known for name, known in found["files"].items())


def test_it_says_when_and_in_which_attempts(trained):
    found = read_manifest(trained[0] / "manifest.json")
    (attempt,) = found["attempts"]
    assert (
        attempt["how"] == "completed" and found["times"]["begin"] == attempt["begin"] < attempt["end"] == found["times"]["end"]
    )
    assert attempt["begin"][:10] == found["written"][:10] and 0 < found["times"]["seconds"] < 600
    assert found["energy_j"] is None, "a CPU does not tell"


def test_it_holds_no_secret_and_no_user_s_path_and_run_yaml_does(trained):
    folder, weights, _ = trained
    text = (folder / "manifest.json").read_text()
    home = str(next(iter(weights.values())).parent)
    assert OUTSIDE in text and not [word for word in (TOKEN, USER, home) if word in text]
    assert home in (folder / "run.yaml").read_text()


WORD = st.text("abcXYZ019_.- é'\";$", min_size=1, max_size=8)
PREFIX = st.sampled_from(
    ["/", "/home/", "~", "~/", "../", "a/../../", "file:///", "https://u:t@", "s3://", "C:\\", "x:/", " /"]
)


@given(PREFIX, st.lists(WORD, max_size=4))
def test_every_place_outside_the_project_is_hidden(prefix, words):
    value = {"data": {"root": prefix + "/".join(["alice", *words])}, "list": [[prefix + "alice"]]}
    assert without_places(value) == {"data": {"root": OUTSIDE}, "list": [[OUTSIDE]]}


@pytest.mark.parametrize(
    "kept", ["data/eth3d", "models/VGGT-1B/model.safetensors", "depth_head.*", "a.12-23.b", "fp32", "a..b"]
)
def test_what_lies_in_the_project_or_is_no_place_is_kept(kept):
    assert without_places({"it": [kept, 1, None, True, 0.5]}) == {"it": [kept, 1, None, True, 0.5]}


def test_large_weights_are_read_once_for_all_runs_until_they_change(tmp_path):
    weights = {"unet": tmp_path / "model"}
    (tmp_path / "model").mkdir()
    file = tmp_path / "model/a.safetensors"
    file.write_bytes(b"one")
    known = tmp_path / "known"
    first = inputs_of(weights, [], known)
    assert first["weights"]["unet"]["a.safetensors"] == {"sha256": sha(file), "bytes": 3}
    (note,) = known.iterdir()
    note.write_text("from the note")
    assert inputs_of(weights, [], known)["weights"]["unet"]["a.safetensors"]["sha256"] == "from the note"
    file.write_bytes(b"other")
    assert inputs_of(weights, [], known)["weights"]["unet"]["a.safetensors"] == {"sha256": sha(file), "bytes": 5}


def test_attempts_energy_and_times_come_from_the_journal(tmp_path, trained, demo_study):
    journal = Journal(tmp_path)
    journal.start("mine", [])
    journal.end("preempted", "because of /home/alice", 10.0)
    journal.start("other", [])
    journal.start("mine", [])
    journal.end("completed", energy=32.5)
    attempts = journal.attempts("mine")
    assert [(one["how"], one["energy_j"]) for one in attempts] == [("preempted", 10.0), ("completed", 32.5)]
    assert journal.attempts("other")[0]["how"] == "killed" and journal.attempts("other")[0]["end"] is None
    run, around = expand(demo_study, "s")[0], surroundings("cpu")
    on_cpu = manifest_of(run, around, {}, attempts, {})
    on_gpu = manifest_of(run, {**around, "device": {"type": "cuda"}}, {}, attempts, {})
    killed = manifest_of(run, {**around, "device": {"type": "cuda"}}, {}, [*attempts, *journal.attempts("other")], {})
    assert (on_cpu["energy_j"], on_gpu["energy_j"], killed["energy_j"]) == (None, 42.5, None)
    assert "alice" not in json.dumps(on_gpu) and killed["times"]["end"] is None


def test_durations_do_not_follow_a_clock_that_is_set(tmp_path, demo_study, monkeypatch):
    """What older versions noted has no ``seconds``: it is read by the times, where these can be true."""
    journal, (run, *_), around, now = Journal(tmp_path), expand(demo_study, "s"), surroundings("cpu"), time.time()

    def seconds():
        return manifest_of(run, around, {}, journal.attempts("mine"), {})["times"]["seconds"]

    for after in (0, -86400):
        monkeypatch.setattr(time, "time", lambda at=now + after: at)
        journal.start("mine", []) if after == 0 else journal.end("completed")
    assert journal.attempts("mine")[0]["end"] < journal.attempts("mine")[0]["begin"] and 0 <= seconds() < 60
    events = [{"event": "start", "settings": "mine", "time": 10.0}, {"event": "end", "how": "completed", "time": 12.5}]
    journal.path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    assert seconds() == 2.5
    journal.path.write_text("".join(f"{json.dumps(event)}\n" for event in (events[0], {**events[1], "time": 9.0})))
    assert seconds() is None


def test_the_card_beside_an_adapter_may_change(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "history.csv").write_text("step\n")
    for name in ("README.md", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_text("x")
    assert set(files_in(tmp_path, "adapter")) == {"history.csv", "adapter/adapter_model.safetensors"}
    assert set(files_in(tmp_path, None)) == {"history.csv"}


@pytest.mark.parametrize("content", [{"schema": "2"}, {}, []])
def test_what_is_no_manifest_is_named(tmp_path, content):
    write_json(tmp_path / "manifest.json", content)
    with pytest.raises(UserError, match="is no manifest"):
        read_manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a manifest"):
        read_manifest(tmp_path / "manifest.json")
