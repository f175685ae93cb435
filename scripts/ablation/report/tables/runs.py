"""Every run, whatever became of it."""

from typing import Any

import pandas as pd

from ablation.objective import ENDED
from ablation.report.results import MEMORY, OOM, STEP_TIME, Results, in_words
from ablation.report.table import NONE, Cell, Column, Row, Table
from ablation.report.tables.cells import largest_memory, memory_digits, metric_column, metric_name, plain_number

RAN = (*ENDED, "oom", "failed")


def run_table(results: Results) -> Table:
    """A row a run."""
    metric, digits = results.primary, memory_digits(largest_memory(results))
    columns = [
        Column("run", "run", numeric=False),
        Column("outcome", "outcome", numeric=False),
        metric_column(metric),
        Column("memory", "memory", "GiB", "lower"),
        Column("step_time", "step", "s", "lower"),
        Column("remarks", "remarks", numeric=False),
    ]
    rows = []
    for run in results.records:
        ids, completed = (run["run"],), run["outcome"] == "completed"
        cells = [
            Cell(run["run"], runs=ids),
            Cell(in_words(run["outcome"])),
            plain_number(run.get(metric_name(metric)), metric.digits, ids),
            Cell(NONE) if run["outcome"] == OOM else plain_number(run.get(MEMORY), digits, ids),
            plain_number(run.get(STEP_TIME), 3, ids),
            Cell(remark(run)),
        ]
        rows.append(Row(cells, "" if completed else "bad"))
    caption = f"All runs of the study, in the order of its plan. Memory: {results.memory_kind}."
    return Table("runs", "Runs", caption, columns, rows)


def remark(run: dict[str, Any]) -> str:
    """What there is to say of a run: where its memory ended, its diagnosis, or why it was not submitted."""
    if run["outcome"] == OOM:
        return out_of_memory(run)
    found = run.get("diagnosis" if run["outcome"] in RAN else "reason")
    ranks = run.get("memory.ranks")
    told = [found if isinstance(found, str) else "", f"GiB by process: {ranks}" if isinstance(ranks, str) else ""]
    return "; ".join(filter(None, told))


def out_of_memory(run: dict[str, Any]) -> str:
    """Where the memory of a run ended, from its ``oom.*``; sizes that are not known are left out."""
    step = run.get("oom.step")
    where = run["oom.phase"] if pd.isna(step) else f"{run['oom.phase']} of step {int(step)}"
    known = {name: run.get(f"oom.{name}_gib") for name in ("requested", "allocated", "reserved")}
    asked = "" if pd.isna(known["requested"]) else f"asked for {_gib(known['requested'])} GiB"
    held = ", ".join(f"{_gib(known[name])} {name}" for name in ("allocated", "reserved") if not pd.isna(known[name]))
    numbers = " with ".join(text for text in (asked, held) if text)
    emulated = f" (emulated {run['memory.card']})" if run["oom.emulated"] else ""
    number = run.get("oom.process")
    where = where if number is None or pd.isna(number) else f"process {int(number)}, {where}"
    return f"out of memory in {where}: {numbers} of {_gib(run['oom.budget_gib'])} GiB{emulated}"


def _gib(value: float) -> str:
    """Two decimals, or for what is small as many as tell."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"
