"""What a run survived, for the table of `make fault-matrix`."""

import json
import os
from pathlib import Path


def survived(case: str, where: str, *, seen: str, seconds: float, repeated: int | None, same: str) -> None:
    """Note a fault that a test has caused and its end; only where FAULT_MATRIX names a file.

    ``where``: local or slurm. ``seen``: what the user sees, in a sentence. ``seconds``: from the fault to the end of what it
    hit. ``repeated``: optimizer steps that were taken twice, None where there is no training. ``same``: how the result
    compares with the undisturbed one.
    """
    path = os.environ.get("FAULT_MATRIX")
    if path:
        row = {
            "case": case,
            "where": where,
            "seen": seen,
            "ended_s": round(seconds, 1),
            "repeated_steps": repeated,
            "same": same,
        }
        with Path(path).open("a") as file:
            file.write(json.dumps(row) + "\n")
