"""Hold runs that were trained again against the first time, and a study's records against each other.

A run is `equal` bit by bit; or `within tolerance`, where it was computed on another platform or a GPU; or it `differs`. Exit
status: 0 if none differs, 1 if one does. Everything is written to `verified.csv` beside the runs that were trained again.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ablation.cli import aligned, call
from ablation.errors import readable
from ablation.files import write_csv
from ablation.resolved import runs_of
from ablation.verify.again import DIFFERS, EQUAL, TOLERANCE, WITHIN, Verdict, by_this_program, compare_run
from ablation.verify.choice import chosen
from ablation.verify.differences import Finding
from ablation.verify.records import TABLE, check_run, check_table, check_tables

TABLES = "(tables)"  # in the place of a run


def verify(reference: Path, again: Path, wanted: str) -> dict[str, Verdict]:
    """What was found, by run, the runs that were trained again first; others are there if their records do not agree."""
    runs = [run.id for run in runs_of(reference / "study.json")]
    rows = check_table(reference) if (reference / TABLE).is_file() else {}
    found = {}
    for run in chosen(reference, runs, wanted):
        by_this_program(again, run)
        compared, kept = compare_run(reference / "runs" / run, again / "runs" / run), records(reference, run, rows)
        word = DIFFERS if any(finding.said for finding in kept) else compared.word
        found[run] = Verdict(word, [*compared.findings, *kept], compared.reasons)
    for run in dict.fromkeys([*runs, *rows]):
        kept = [] if run in found else records(reference, run, rows)
        if any(finding.said for finding in kept):
            found[run] = Verdict(DIFFERS, kept, [])
    if rows and (reference / "tables").is_dir():
        tables = check_tables(reference)
        found[TABLES] = Verdict(DIFFERS if tables.said else EQUAL, [tables], [])
    return found


def records(reference: Path, run: str, rows: Mapping[str, Finding]) -> list[Finding]:
    """Where what is written of a run does not agree, or does."""
    folder = reference / "runs" / run
    kept = check_run(folder) if (folder / "metrics.json").is_file() else []
    return [*kept, *([rows[run]] if run in rows else [])]


def told(found: dict[str, Verdict]) -> str:
    """A line a run, then in what they differ, and what was not the same around them."""
    lines = aligned([[verdict.word, run] for run, verdict in found.items()], left=(0, 1))
    for run, verdict in found.items():
        if verdict.word == EQUAL:
            continue
        lines += ["", f"{run} {verdict.word}:"]
        lines += [f"  {one.what}: {one.said}" for one in verdict.findings if one.said]
        lines += [f"  not the same: {reason}" for reason in verdict.reasons]
    if any(verdict.word == WITHIN for verdict in found.values()):
        said = ", ".join(f"{what} {bound:.0%}" for what, bound in TOLERANCE.items())
        lines += ["", f"Tolerance between platforms, relative: {said} (docs/reproduce.md)."]
    return readable("\n".join(lines), longest=1_000_000)


def table(found: dict[str, Verdict]) -> list[dict[str, str]]:
    """The same, a row a run."""
    return [
        {
            "run": run,
            "verdict": verdict.word,
            **{finding.what: finding.said or "equal" for finding in verdict.findings},
            "not the same": "; ".join(verdict.reasons),
        }
        for run, verdict in found.items()
    ]


def main() -> None:
    """Compare, write, tell, for each study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, nargs="+", required=True, help="folders of studies that have results")
    parser.add_argument("--again", type=Path, nargs="+", required=True, help="for each, the folder of what was trained again")
    parser.add_argument("--runs", default="2", help="which: ids with commas between them, a number (the quickest), or all")
    args = parser.parse_args()
    differs = False
    for reference, again in zip(args.reference, args.again, strict=True):
        found = verify(reference, again, args.runs)
        write_csv(again / "verified.csv", table(found))
        sys.stdout.write(f"{reference} against {again}\n{told(found)}\n\n")
        differs |= any(verdict.word == DIFFERS for verdict in found.values())
    sys.exit(1 if differs else 0)


if __name__ == "__main__":
    call(main)
