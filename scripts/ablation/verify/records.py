"""A study's records held against each other: what is written twice must be the same in both places."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.collect import NESTED, read_plan, result_of
from ablation.errors import UserError
from ablation.files import digest
from ablation.manifest import read_manifest, settings_hash, without_places
from ablation.report.formats.csv import as_csv
from ablation.report.results import Results, read_runs
from ablation.report.study_report import report_of
from ablation.report.table import Table
from ablation.resolved import load_study
from ablation.verify.differences import FAR, Finding, compare_files, flat, same, unequal
from ablation.verify.reading import read_record, read_settings

TABLE = "runs.parquet"


def check_run(folder: Path) -> list[Finding]:
    """A run's files against its manifest, and its two records against each other. Files that are not there are not missed."""
    manifest = read_manifest(folder / "manifest.json")
    known = {name: sha for name, sha in manifest.get("files", {}).items() if (folder / name).exists()}
    found = [compare_files("files", known, {name: digest(folder / name) for name in known}, apart=FAR)]
    if "settings" in manifest:
        found.append(_check_settings(manifest, read_settings(folder)))
    if (folder / "training.json").is_file():
        training, metrics = (read_record(folder / name) for name in ("training.json", "metrics.json"))
        pairs = {name: (value, metrics.get(name)) for name, value in training.items()}
        found.append(_first("training.json", pairs, ("in it", "in metrics.json")))
    return found


def check_table(study: Path) -> dict[str, Finding]:
    """By run: its row of the collected table against the plan and the run's own folder, where they are."""
    table, plan = read_runs(study / TABLE), study / "plan.csv"
    if "run" not in table:
        raise UserError(f"{study / TABLE}: is no table of collected runs (it has no column run)")
    planned = {row["run"]: row for row in read_plan(plan).to_dict("records")} if plan.is_file() else {}
    return {row["run"]: _check_row(study, row, planned) for row in table.to_dict("records")}


def check_tables(study: Path) -> Finding:
    """The report's tables against those made again from the collected ones."""
    name, resolved = load_study(study / "study.json")
    report = report_of(Results(resolved, read_runs(study / TABLE)), name, study)
    for block in (block for section in report.sections for block in section.blocks if isinstance(block, Table)):
        path = study / "tables" / f"{block.name}.csv"
        lines, again = (
            text.splitlines() for text in (path.read_text(encoding="utf-8") if path.is_file() else "", as_csv(block))
        )
        if lines != again:
            pairs = zip(lines, again, strict=False)
            place = next((i for i, (a, b) in enumerate(pairs, start=1) if a != b), min(len(lines), len(again)) + 1)
            return Finding("tables", f"tables/{block.name}.csv: line {place} is not what {TABLE} gives", FAR)
    return Finding("tables")


def _check_settings(manifest: Mapping[str, Any], view: Mapping[str, Any]) -> Finding:
    """What a run was told in ``run.yaml`` and in its manifest, which says more, and hides places."""
    if manifest.get("settings_sha256") != settings_hash(view):
        return Finding("run.yaml", "not what the manifest was written for (settings_sha256)", FAR)
    here = flat(without_places({name: view.get(name) for name in ("axes", "strategy", "settings")}))
    there = flat(manifest["settings"])
    return _first("manifest.json", {name: (there.get(name), value) for name, value in here.items()}, ("in it", "in run.yaml"))


def _check_row(study: Path, row: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]]) -> Finding:
    run = row["run"]
    if planned and run not in planned:
        return Finding(TABLE, "a run that the plan does not have", FAR)
    left = study / "runs" / run
    wanted = {**planned.get(run, {}), **(result_of(left) if (left / "metrics.json").is_file() else {})}
    names = {*wanted, *row} if planned and wanted.keys() > planned[run].keys() else wanted  # then all columns are known
    columns = [name for name in dict.fromkeys([*row, *wanted]) if name in names]
    pairs = {name: (_cell(name, row.get(name)), _cell(name, wanted.get(name))) for name in columns}
    return _first(TABLE, pairs, ("in it", "in the run's files"))


def _first(what: str, pairs: Mapping[str, tuple[Any, Any]], names: tuple[str, str]) -> Finding:
    """The first number that is not the same in two places, of how many."""
    one, two = (flat({name: pair[which] for name, pair in pairs.items()}) for which in (0, 1))
    different = [name for name in dict.fromkeys([*one, *two]) if not same(one.get(name), two.get(name))]
    if not different:
        return Finding(what)
    first = different[0]
    said = unequal(one.get(first), two.get(first), names)
    return Finding(what, f"{len(different)} of {len(one)}, first {first}: {said}", FAR)


def _cell(column: str, value: Any) -> Any:
    """A cell as plain data; what is kept as JSON, read."""
    found = _plain(value)
    try:
        return json.loads(found) if column in NESTED and isinstance(found, str) else found
    except ValueError:
        return found


def _plain(value: Any) -> Any:
    """A value of a table: arrays as lists, gaps as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if value is None or (not isinstance(value, str) and pd.isna(value)) else value
