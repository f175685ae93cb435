"""What ran where: on which machines and by which code the runs of a study were trained."""

from collections.abc import Mapping
from typing import Any

from ablation.report.details import code_of
from ablation.report.results import Results
from ablation.report.table import Cell, Column, Row, Table, texts

COLUMNS = [
    Column("runs", "runs"),
    Column("device", "device", numeric=False),
    Column("host", "host", numeric=False),
    Column("software", "software", numeric=False),
    Column("code", "commit", numeric=False),
    Column("trained", "trained", numeric=False),
]


def origin_table(results: Results) -> Table:
    """A row for each machine and version of the code; the runs of each are those of its first cell."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in results.records:
        if isinstance(row.get("origin.host"), str):
            found.setdefault(_origin(row), []).append(row)
    rows = [
        Row([Cell(str(len(runs)), float(len(runs)), runs=[row["run"] for row in runs]), *texts(*origin, _days(runs))])
        for origin, runs in found.items()
    ]
    several = len({origin[3] for origin in found}) > 1
    caption = "Where the runs of this study were trained, as each wrote down itself; dates in UTC." + (
        " They come from different versions of the code." if several else ""
    )
    return Table("origins", "What ran where", caption, COLUMNS, rows)


def _origin(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Device, host, software and code of a run."""
    driver, threads = row.get("origin.device.driver"), row.get("origin.device.threads")
    if isinstance(row.get("gpu"), str):
        device = row["gpu"] + (f", driver {driver}" if isinstance(driver, str) else "")
    else:
        device = f"{row.get('origin.cpu')}, {threads:.0f} thread{'s' if threads > 1 else ''} a process"
    packages = [("Python", row.get("origin.python"))]
    packages += [(name, row.get(f"origin.{name}")) for name in ("torch", "peft", "accelerate")]
    software = ", ".join(f"{name} {version}" for name, version in packages if isinstance(version, str))
    return device, row["origin.host"], software, code_of(row) or "not a git checkout"


def _days(runs: list[dict[str, Any]]) -> str | None:
    """The day, or the first and the last."""
    days = sorted(row["origin.written"][:10] for row in runs if isinstance(row.get("origin.written"), str))
    return None if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
