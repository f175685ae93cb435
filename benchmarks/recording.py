"""What a benchmark found, kept in ``benchmarks/speed/NAME.json``; docs/speed.md is the table of all of them.

A row compares two ways to do the same work, measured beside each other in one run, and names the test that shows that the
results are the same.
"""

import json
import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from ablation.files import write_json
from ablation.provenance import cpu_name

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks/speed"
PACKAGES = ("torch", "snakemake")


class Row(NamedTuple):
    """``before`` and ``after`` in ``unit``, such as s or GiB; ``test``: path::name below the project."""

    what: str
    before: float
    after: float
    unit: str
    test: str

    @property
    def ratio(self) -> float:
        """After, as a share of before."""
        return self.after / self.before


def told(rows: list[Row]) -> str:
    """A line for each row."""
    return "".join(f"{row.what}: {row.before:.4g} -> {row.after:.4g} {row.unit}, ratio {row.ratio:.3f}\n" for row in rows)


def record(name: str, rows: list[Row], folder: Path = FOLDER) -> None:
    """Keep ``rows`` with the machine, the versions and the day."""
    machine = {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0))}
    versions = {package: version(package) for package in PACKAGES}
    around = {"date": datetime.now(UTC).date().isoformat(), **machine, "versions": versions}
    write_json(folder / f"{name}.json", {**around, "rows": [row._asdict() for row in rows]})


def read_all(folder: Path = FOLDER) -> dict[str, dict]:
    """All records by name; ``rows`` of each as :class:`Row`."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: {**content, "rows": [Row(**row) for row in content["rows"]]} for name, content in found.items()}
