"""A small study as the workflow leaves it when its report is written, made without training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import STUDY
from PIL import Image
from report_study import write_study
from safetensors.numpy import save_file

from ablation.collect import flat_columns
from ablation.manifest import settings_hash
from ablation.report.writing import write_report
from ablation.resolved import save_study
from ablation.study import load_study
from ablation.sweep import expand
from ablation.yamlfile import dump_yaml, load_yaml

HIDDEN = "/home/ann/secret data"
LEFT = ["state/step-1/weights.safetensors", "tensorboard/events.out", "trainer.log"]  # what is not given away


def finished_study(root: Path, changes: dict | None = None) -> Path:
    """The folder of the study: a run that was completed and one that diverged, whose data lie in somebody's home."""
    seeds = {"sweep": {"strategy": "A", "rank": 4, "seed": [0, 1]}}
    study = load_study(STUDY, {**seeds, "data": {"root": f"{HIDDEN}/eth3d"}, **(changes or {})})
    folder = root / "results/demo/s"
    folder.mkdir(parents=True)
    save_study(folder / "study.json", "s", study)
    runs, results = write_study(folder, study, {expand(study, "s")[1].id: "diverged"})
    table = results.runs.assign(reason=f"needs {HIDDEN}/eth3d/hall")
    table.to_parquet(folder / "runs.parquet", index=False)
    flat_columns(table).to_csv(folder / "runs.csv", index=False)
    (folder / "base/b/pictures").mkdir(parents=True)
    _picture(folder / "base/b/pictures/yard.png", 1)
    for number, run in enumerate(runs):
        target = folder / "runs" / run.id
        (target / "run.yaml").write_text(dump_yaml(run.training_view))
        training = {"outcome": "diverged" if number else "completed"}
        (target / "training.json").write_text(json.dumps({"run": run.id, **training}))
        _tell_times(target / "manifest.json", number)
        for name in LEFT:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(f"{HIDDEN}\n")
    first = folder / "runs" / runs[0].id
    (first / "adapter").mkdir()
    save_file({"a": np.arange(6, dtype=np.float32)}, first / "adapter/adapter_model.safetensors")
    (first / "adapter/README.md").write_text("# a card\n")
    (first / "pictures").mkdir()
    _picture(first / "pictures/yard.png", 2)
    write_report(folder / "study.json", folder, folder)
    return folder


def _tell_times(path: Path, minute: int) -> None:
    manifest = json.loads(path.read_text())
    inputs = {"weights": {"weights": {"w.safetensors": {"sha256": "ab" * 32, "bytes": 3}}}, "data": {"photos-1": "cd" * 32}}
    times = {"begin": f"2026-11-01T10:0{minute}:00.000+00:00", "end": f"2026-11-01T10:0{minute}:30.000+00:00", "seconds": 30}
    settings = {"settings_sha256": settings_hash(load_yaml(path.with_name("run.yaml")))}
    path.write_text(json.dumps({**manifest, "schema": 2, **settings, "inputs": inputs, "times": times}))


def _picture(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(path)


def table_of(folder: Path) -> pd.DataFrame:
    """The collected runs."""
    return pd.read_parquet(folder / "runs.parquet")
