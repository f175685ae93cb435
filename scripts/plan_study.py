"""Write the plan of a study: for each run what it would train and whether it can run; for each cell, on which cards."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ablation import planned
from ablation.alike import alike, one_training
from ablation.cli import call
from ablation.files import write_csv
from ablation.hardware import load_card, load_cards
from ablation.outlook import outlook
from ablation.resolved import load_study
from ablation.standing import InputFolders, standing_of
from ablation.sweep import expand
from ablation.waiting import say

CELL = ("strategy", "rank", "batch", "accumulation", "gpus", "precision")
HEAD = (
    *(
        f"{'strategy':<10}",
        "rank",
        "batch",
        "accum",
        "gpus",
        f"{'precision':<9}",
        f"{'trainable':>12}",
        " share",
        f"{'predicted':>9}",
    ),
    *("of GiB", " memory"),
)
SHOWN, SHOWN_ON_CARDS = 40, 20  # cells; the files have them all


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    """What a person wants to know of a plan."""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row["verdict"] for row in rows).items())
    lines = [f"{name}: {len(rows)} runs ({verdicts})"]
    cells = list({tuple(row[axis] for axis in CELL): row for row in rows}.values())
    if any("predicted_gib" in row for row in cells):
        lines.append(f"  {' '.join(HEAD)}")
    lines += [f"  {_line(row)}" for row in cells[:SHOWN] if "predicted_gib" in row]
    if len(cells) > SHOWN:
        lines.append(f"  ... and {len(cells) - SHOWN} more cells in plan.csv")
    lines += frozen(rows)
    return "\n".join(lines)


def frozen(rows: list[dict[str, Any]]) -> list[str]:
    """How much of the forward pass comes before what each strategy trains, and for how many runs that is the same."""
    found = {(row["strategy"], row["frozen_forward"], row["prefix_runs"]) for row in rows if "frozen_forward" in row}
    parts = [f"{strategy} {share:.0%} for {runs} runs" for strategy, share, runs in sorted(found)]
    return [f"  frozen, of the forward pass, and shared: {', '.join(parts)}"] if parts else []


def _line(row: dict[str, Any]) -> str:
    share = row["trainable_params"] / row["total_params"]
    axes = f"{row['strategy']:<10} {row['rank'] or '-':>4} {row['batch']:>5} {row['accumulation']:>5} {row['gpus']:>4}"
    sizes = f"{row['trainable_params']:>12,} {share:>6.2%} {row['predicted_gib']:>9.2f} {row['budget_gib']:>6.2f}"
    return f"{axes} {row['precision']:<9} {sizes}  {row['memory_verdict']}"


def on_cards(rows: list[dict[str, Any]]) -> str:
    """A line for each cell: what memory allows on every card."""
    cards = list(dict.fromkeys(row["card"] for row in rows))
    if {row["verdict"] for row in rows} <= {"fits"}:
        return f"every cell fits {', '.join(cards)}" if rows else ""
    verdicts = {(row["cell"], row["card"]): row["verdict"] for row in rows}
    cells = {row["cell"]: row["cell"].rsplit("-", 1)[0] for row in rows}  # without the hash
    width = max(map(len, cells.values()))
    lines = [f"  {'':<{width}}  {'  '.join(cards)}"]
    for cell, name in list(cells.items())[:SHOWN_ON_CARDS]:
        marks = "  ".join(f"{verdicts[cell, card]:<{len(card)}}" for card in cards)
        lines.append(f"  {name:<{width}}  {marks}".rstrip())
    if len(cells) > SHOWN_ON_CARDS:
        lines.append(f"  ... and {len(cells) - SHOWN_ON_CARDS} more cells in cards.csv")
    return "\n".join(lines)


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a run that is finished: what it was trained on may be gone, and its result stands."""
    if row["verdict"] != "invalid" or "memory_verdict" not in row:
        return row
    return {**row, "verdict": row["memory_verdict"], "reason": f"finished; {row['reason']}"}


def main() -> None:
    """Plan, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--traces", type=Path, help="a folder that keeps traced steps for the next plan")
    parser.add_argument("--workers", type=int, default=1, help="processes that trace steps")
    parser.add_argument("--submitted", nargs="+", default=["fits", "tight"], help="verdicts of runs that are sent")
    parser.add_argument("--key", default="", help="what the plan is made from, hashed; it is written beside each run")
    parser.add_argument("--data", type=Path, default=Path("results/demo/data"), help="folder of prepared data")
    parser.add_argument("--hashes", type=Path, default=Path("results/hashes"), help="folder that remembers hashes of weights")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--on-cards", type=Path, required=True, help="where to write what memory allows on each card")
    args = parser.parse_args()
    name, study = load_study(args.study)
    card, cards = load_card(study.hardware, args.cards), load_cards(args.cards)
    say(f"{name}: planning for the {card.name}")
    from ablation.ahead import steps_ahead  # these take seconds to import
    from ablation.preflight import plan

    found = plan(study, name, card, args.traces, args.workers, cards)
    runs, folder, inputs = expand(study, name), args.output.parent / "runs", InputFolders(args.data, args.hashes)
    stands = {run.id: standing_of(run, folder / run.id, inputs) for run in runs}
    same = alike(study, runs, steps_ahead(runs, args.data))
    first = {run.id: group.runs[0].id for group in same for run in group.runs[1:]}
    rows = [{**(kept(row) if stands[row["run"]].done else row), "same_as": first.get(row["run"])} for row in found.runs]
    write_csv(args.output, [{**row, planned.COLUMN: args.key} for row in rows])
    write_csv(args.on_cards, found.cards)
    verdicts = {row["run"]: row["verdict"] for row in rows}
    ahead = outlook(name, {run.id: run for run in runs}, verdicts, args.submitted, lambda run: stands[run.id])
    unlike = [f"warning: {one}; see same_as in plan.csv" for one in one_training(same)]
    texts = (summary(name, rows), *unlike, on_cards(found.cards), *(f"missing: {line}" for line in found.missing), ahead)
    sys.stdout.write("\n".join(text for text in texts if text) + "\n")


if __name__ == "__main__":
    call(main)
