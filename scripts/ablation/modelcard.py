"""The card beside what a run trained: a README.md in the form that PEFT and the Hugging Face Hub give their models."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from ablation.files import write_text
from ablation.manifest import CARD
from ablation.private import Private
from ablation.settings import Metric
from ablation.sweep import Run
from ablation.yamlfile import dump_yaml

TEMPLATE = Path(__file__).with_name("modelcard.md.j2")
NOT_KNOWN = "not recorded"


def write_card(run: Run, folder: Path, record: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path | None:
    """Write the card of what ``run`` saved in its ``folder``, which is shown as the project's root sees it.

    ``record``: the content of ``metrics.json``; ``manifest``: of ``manifest.json``, of whatever age. Returns its path: in the
    adapter's folder, or beside the weights; None where nothing was saved.
    """
    if not record.get("saved"):
        return None
    saved = folder / record["saved"]
    path = (saved if saved.is_dir() else folder) / CARD
    write_text(path, str(card(run, folder, record, manifest)))
    return path


def card(run: Run, folder: Path, record: Mapping[str, Any], manifest: Mapping[str, Any]) -> ModelCard:
    """The card itself. Paths outside the project are not told."""
    view = run.training_view
    private = Private(view)
    adapter, metrics = run.rank is not None, [one for one in run.settings.metrics() if one.name in record["metrics"]]
    data = card_data(run, record)
    parameters = record.get("parameters", {})
    told = private.value({
        "what": f"{run.settings.system.upper()} with {_kind(run)}",
        "kind": _kind(run),
        "parameters": f"{parameters['trainable']:,} of {parameters['total']:,}" if parameters else NOT_KNOWN,
        "base": _base(run),
        "licence": _licence(run),
        "folder": repr(f"runs/{run.id}" if folder.is_absolute() else str(folder)),
        "saved": record["saved"],
        "data": dump_yaml(view["settings"]["data"]).strip(),
        "hyperparameters": dump_yaml({"strategy": view["strategy"], "training": view["settings"]["training"]}).strip(),
        "sizes": _sizes(record),
        "notes": record.get("notes", {}),
        "results": _rows(metrics, record["metrics"], record.get("metrics_before", {})),
        "primary": _label(metrics[0]) if metrics else "",
        "items": _items(metrics, record),
        "origin": _origin(manifest),
        "packages": manifest.get("packages", {}),
    })  # fmt: skip
    form = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return ModelCard(form.render(card_data=data.to_yaml(), run=run, adapter=adapter, **_one_line(told)))


def card_data(run: Run, record: Mapping[str, Any]) -> ModelCardData:
    """The head of the card, for programs."""
    hub, adapter = run.settings.hub(), run.rank is not None
    source = getattr(getattr(run.settings, "data", None), "source", run.settings.system)
    results = [
        EvalResult(
            task_type=hub.task,
            dataset_type=source,
            dataset_name=f"{source}, held out",
            dataset_split="test",
            metric_type=metric.name,
            metric_name=_label(metric),
            metric_value=record["metrics"][metric.name],
        )
        for metric in run.settings.metrics()
        if _is_number(record["metrics"].get(metric.name))
    ]
    known = _released(run)
    relation = {"base_model_relation": "adapter" if adapter else "finetune"} if known else {}
    return ModelCardData(
        base_model=known[0] if known else None,
        library_name="peft" if adapter else None,
        pipeline_tag=hub.task,
        tags=[run.settings.system, *(["lora"] if adapter else []), "ablation"],
        model_name=run.id,
        eval_results=results or None,
        **relation,
    )


def _released(run: Run) -> list[str]:
    """The releases that the run started from: those that a folder of its weights is named after, as in the documentation."""
    steps = {step for path in run.settings.weight_files().values() for step in Path(path).parts}
    return [name for name in run.settings.hub().releases if name.rpartition("/")[2] in steps]


def _base(run: Run) -> str:
    files = ", ".join(f"`{path}`" for path in run.settings.weight_files().values()) or "none: trained from scratch"
    return " ".join([*(f"[{name}](https://huggingface.co/{name})," for name in _released(run)), files])


def _licence(run: Run) -> str:
    releases = run.settings.hub().releases
    known = [f"{name}: {releases[name]}" for name in _released(run)]
    return (
        f"what was trained is its author's to license, within the licence of the base weights ({'; '.join(known) or NOT_KNOWN})"
    )


def _kind(run: Run) -> str:
    return f"a LoRA adapter of rank {run.rank}" if run.rank is not None else "weights trained in full"


def _sizes(record: Mapping[str, Any]) -> dict[str, str]:
    time, memory = record.get("time", {}), record.get("memory", {})
    on = "as live tensors on the CPU" if memory.get("kind") == "cpu" else "on the GPU"
    found = {
        "steps": (record.get("steps"), ",.0f", ""),
        "final loss": (record.get("final_loss"), ".4g", ""),
        "step, median": (time.get("step_median_s"), ".3f", " s"),
        "throughput": (time.get("samples_per_s"), ".2f", " samples/s"),
        "runs on the GPU at a time": (time.get("packed"), "d", ""),
        f"memory, peak allocated {on}": (memory.get("peak_allocated_gib"), ".3f", " GiB"),
    }
    return {name: f"{value:{form}}{unit}" for name, (value, form, unit) in found.items() if _is_number(value)}


def _rows(metrics: Sequence[Metric], after: Mapping[str, Any], before: Mapping[str, Any]) -> list[list[str]]:
    return [[_label(metric), _number(before.get(metric.name), metric), _number(after[metric.name], metric)]
            for metric in metrics if metric.name in after]  # fmt: skip


def _items(metrics: Sequence[Metric], record: Mapping[str, Any]) -> list[list[str]]:
    """Each held-out item with the first metric."""
    if not metrics:
        return []
    first = metrics[0]
    before = {item["item"]: item for item in record.get("items_before", [])}
    return [
        [str(item["item"]), *(_number(of.get(first.name), first) for of in (before.get(item["item"], {}), item))]
        for item in record.get("items", [])
    ]


def _origin(manifest: Mapping[str, Any]) -> dict[str, str]:
    """On what and by what code the run was trained, as far as its manifest says."""
    code, device = manifest.get("code", {}), manifest.get("device", {})
    commit = code.get("commit") and code["commit"] + (" with local changes" if code.get("changed") else "")
    found = {
        "Hardware": device.get("name") or manifest.get("cpu"),
        "Driver": device.get("driver"),
        "Python": manifest.get("python"),
        "System": manifest.get("system"),
        "Commit of the workflow": commit,
        "Begun": (manifest.get("times") or {}).get("begin") or manifest.get("written"),
        "Seconds": (manifest.get("times") or {}).get("seconds"),
        "Energy in J": manifest.get("energy_j"),
        "Settings, SHA-256": manifest.get("settings_sha256"),
    }
    return {name: str(value) for name, value in found.items() if value}


def _label(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _number(value: Any, metric: Metric) -> str:
    return f"{value:.{metric.digits}f}" if _is_number(value) else "–"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _one_line(told: dict[str, Any]) -> dict[str, Any]:
    """What stands in tables and lists, without what would end a line or a cell."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {plain(name): plain(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return " ".join(str(value).split()).replace("|", "\\|")

    return {name: value if name in ("data", "hyperparameters") else plain(value) for name, value in told.items()}
