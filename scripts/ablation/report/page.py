"""The report page: one self-contained HTML file."""

import base64
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ablation.report import figures, tables, words
from ablation.report.recommended import recommended_section
from ablation.report.results import OOM, CellResult, Results
from ablation.report.splits import splits_table
from ablation.yamlfile import dump_yaml

MAX_VIEWS = 3


def report_page(results: Results, name: str, folder: Path) -> str:
    """The HTML of a study's report, from its table and the files of its runs under ``folder``."""
    contents, histories = _contents(results, folder), _histories(results, folder)
    items = _items(results, contents)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        name=name,
        title=results.study.title or name,
        scale=results.study.scale,
        summary=words.summary(results),
        main=tables.main_table(results),
        costs=tables.cost_table(results),
        memory=tables.memory_table(results),
        card=results.study.hardware,
        figures=_figures(results, histories),
        splits=splits_table(results, histories),
        claims=_claims(results, folder),
        items=_item_section(results, items),
        metric=results.primary,
        memory_kind=results.memory_kind,
        out_of_memory=any(cell.out_of_memory for cell in results.cells) and results.study.hardware,
        notes=_notes(contents),
        views=_views(results, folder),
        recommended=recommended_section(results.study, folder),
        runs=tables.run_table(results),
        machines=_machines(results, folder),
        settings=dump_yaml(results.study.model_dump(mode="json", exclude_none=True)),
    )


def _contents(results: Results, folder: Path) -> dict[str, dict[str, Any]]:
    """The metrics.json of each run that has one."""
    paths = {run: folder / "runs" / run / "metrics.json" for run in results.runs["run"]}
    return {run: json.loads(path.read_text()) for run, path in paths.items() if path.is_file()}


def _items(results: Results, contents: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """The primary metric by held-out item and run, before and after."""
    metric, rows = results.primary.name, []
    for run, strategy in zip(results.runs["run"], results.runs["strategy"], strict=True):
        content = contents.get(run, {})
        before = {item["item"]: item.get(metric) for item in content.get("items_before", [])}
        for item in content.get("items", []):
            if metric in item:
                rows.append(
                    {
                        "item": item["item"],
                        "strategy": strategy,
                        "value": item[metric],
                        "before": before.get(item["item"]),
                    }
                )
    return pd.DataFrame(rows, columns=["item", "strategy", "value", "before"])


def _histories(results: Results, folder: Path) -> dict[str, pd.DataFrame]:
    """A row a step, of each run that has any."""
    # A loss curve that memory cut short would cut the mean of its cell short with it.
    finished = results.runs.loc[results.runs["outcome"] != OOM, "run"]
    paths = {run: folder / "runs" / run / "history.csv" for run in finished}
    return {run: pd.read_csv(path) for run, path in paths.items() if path.is_file() and path.stat().st_size}


def _figures(results: Results, histories: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    label = results.primary.label
    memory = figures.quality_against_memory(results)
    loss = figures.loss_curves(results, histories)
    drawn = [
        ("Quality against memory", f"Each point is a cell: mean over its seeds, with the 95 % t interval of {label}.", memory),
        ("Training loss", "Mean over the seeds of a cell, smoothed over a tenth of the steps; the band is their range.", loss),
    ]
    return [{"title": title, "caption": caption, "svg": svg} for title, caption, svg in drawn if svg]


def _item_section(results: Results, items: pd.DataFrame) -> dict[str, Any] | None:
    """Table and figure of the held-out items; None where no run was evaluated."""
    if items.empty:
        return None
    return {"table": tables.item_table(results, items), "svg": figures.before_and_after(results, items)}


def _claims(results: Results, folder: Path) -> dict[str, Any] | None:
    """The table of published claims; None for a study that names none."""
    if results.study.claims is None:
        return None
    with (folder / "claims.csv").open(newline="") as file:
        return tables.claim_table(list(csv.DictReader(file)))


def _views(results: Results, folder: Path) -> list[dict[str, Any]]:
    """Pictures of a few held-out views: the pretrained model, then the best cell of each strategy."""
    sources = [("before", base) for base in sorted((folder / "base").glob("*"))[:1]]
    sources += [(cell.label, folder / "runs" / cell.runs["run"].iloc[0]) for cell in _best_of_each_strategy(results)]
    names = sorted({path.name for _, source in sources for path in (source / "pictures").glob("*.png")})
    chosen = [names[int(index)] for index in np.linspace(0, len(names) - 1, min(MAX_VIEWS, len(names))).round()]
    views = []
    for name in chosen:
        found = [(label, source / "pictures" / name) for label, source in sources]
        views.append(
            {
                "name": Path(name).stem,
                "pictures": [{"label": label, "data": _data(path)} for label, path in found if path.is_file()],
            }
        )
    return views


def _best_of_each_strategy(results: Results) -> list[CellResult]:
    column, sign = f"metric.{results.primary.name}", 1 if results.primary.lower_is_better else -1
    best: dict[str, tuple[float, CellResult]] = {}
    for cell in results.cells:
        found = cell.estimate(column)
        if found and (cell.strategy not in best or sign * found.mean < best[cell.strategy][0]):
            best[cell.strategy] = (sign * found.mean, cell)
    return [cell for _, cell in best.values()]


def _data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _notes(contents: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """How the evaluation was done, as the runs say; several ways are listed side by side."""
    found: dict[str, list[str]] = {}
    for content in contents.values():
        for key, value in content.get("notes", {}).items():
            if value not in found.setdefault(key, []):
                found[key].append(value)
    return {key: " / ".join(values) for key, values in found.items()}


def _machines(results: Results, folder: Path) -> list[dict[str, Any]]:
    """Which code ran on which machine, with the number of runs of each."""
    seen: dict[str, dict[str, Any]] = {}
    for run in results.runs["run"]:
        path = folder / "runs" / run / "manifest.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        device, packages, code = content["device"], content["packages"], content["code"]
        where = (
            f"{device['name']}, driver {device['driver']}"
            if device["type"] == "cuda"
            else f"{content['cpu']} ({device['threads']} thread(s) a job)"
        )
        software = ", ".join(f"{name} {packages[name]}" for name in ("torch", "peft", "accelerate") if name in packages)
        commit = (
            "not a git checkout"
            if code["commit"] is None
            else code["commit"][:12] + (" with local changes" if code["changed"] else "")
        )
        row = {
            "device": where,
            "host": content["host"],
            "software": f"Python {content['python']}, {software}",
            "code": commit,
        }
        seen.setdefault(json.dumps(row), {**row, "runs": 0})["runs"] += 1
    return list(seen.values())
