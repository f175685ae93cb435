"""`make claims`: all studies in one table that a terminal holds, refuted claims first."""

import csv
import subprocess
import sys

from conftest import ROOT

from ablation.claims.overview import overview

ROW = {"claim": "x", "says": "", "source": "", "claimed": "", "ours": "", "basis": "", "verdict": "confirmed", "reason": ""}
LONG = {
    "says": "the sum of all that there is to say of it " * 3,
    "claimed": "0.81 of strategy A, precision bf16",
    "reason": "so " * 60,
}
STUDIES = {
    "one": [ROW | {"says": "it is light", "ours": "2 GB", "basis": "predicted"}, ROW | {"verdict": "refuted", **LONG}],
    "two-with-a-long-name": [
        ROW | {"verdict": "not comparable", "reason": "needs runs"},
        ROW | {"verdict": "refuted"},
    ],
}


def test_refuted_first_and_no_line_is_too_long():
    lines = overview(STUDIES).split("\n")
    assert lines[0] == "4 claims of 2 studies: 2 refuted, 1 confirmed, 1 not comparable"
    assert [line for line in lines if line.isupper()] == ["REFUTED", "CONFIRMED", "NOT COMPARABLE"]
    assert max(map(len, lines)) <= 120
    assert "2 GB (predicted)" in lines[lines.index("CONFIRMED") + 2]
    assert " ".join(" ".join(lines).split()).count("so so so") > 0


def test_the_program_names_studies_by_their_folders(tmp_path):
    for study, rows in STUDIES.items():
        (tmp_path / study).mkdir()
        with (tmp_path / study / "claims.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROW))
            writer.writeheader()
            writer.writerows(rows)
    command = [sys.executable, ROOT / "scripts/print_claims.py", *(tmp_path / study / "claims.csv" for study in STUDIES)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == overview(STUDIES) + "\n"
