"""Write docs/faults.md's table: what the tests marked ``fault`` caused, and how it ended."""

import argparse
import json
from pathlib import Path

from ablation.cli import call
from ablation.files import write_text

HEAD = """# What a study survives

A row a fault that a test causes for real, on one machine or on a SLURM that the tests boot; `make fault-matrix` causes them
all again and writes this page. Runs are small, on a CPU. "Same": how the final metrics, history and adapter compare with those
of a run that nothing disturbed. "Ended after": until what the fault hit had ended, or had been ended.

"""
COLUMNS = {
    "case": "Fault",
    "where": "Where",
    "seen": "What one sees",
    "ended_s": "Ended after",
    "repeated_steps": "Steps taken again",
}
COLUMNS |= {"same": "Same"}


def table(rows: list[dict]) -> str:
    """Rows as Markdown, local ones first, each fault once."""
    unique = {(row["case"], row["where"]): row for row in rows}
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    for _, row in sorted(unique.items(), key=lambda item: (item[0][1], item[0][0])):
        shown = {**row, "ended_s": f"{row['ended_s']:.0f} s"}
        if row["repeated_steps"] is None:
            shown["repeated_steps"] = "-"
        lines.append("| " + " | ".join(str(shown[name]).replace("|", "\\|") for name in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """From the lines that the tests left to the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, help="the file that FAULT_MATRIX named")
    parser.add_argument("--output", type=Path, default=Path("docs/faults.md"))
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.records.read_text(encoding="utf-8").splitlines()]
    write_text(args.output, HEAD + table(rows))
    print(table(rows))


if __name__ == "__main__":
    call(main)
