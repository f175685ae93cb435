"""The claims of a study as rows, and rows as text for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ablation.claims.model import Claim
from ablation.claims.verdicts import CONFIRMED, NOT_COMPARABLE, REFUTED, Judge
from ablation.claims.words import as_claimed

ORDER = (REFUTED, CONFIRMED, NOT_COMPARABLE)
SHOWN = ("verdict", "claim", "claimed", "ours", "basis", "reason")

Row = dict[str, str]


def claim_table(claims: Mapping[str, Claim], judge: Judge) -> list[Row]:
    """A row for each claim: what was published, what is ours, on which basis, and the verdict."""
    return [_row(name, claim, judge) for name, claim in claims.items()]


def _row(name: str, claim: Claim, judge: Judge) -> Row:
    found = judge(claim)
    unit = judge.quantities[claim.quantity].unit if claim.quantity in judge.quantities else ""
    return {
        "claim": name,
        "says": claim.says,
        "source": claim.source or "",
        "claimed": as_claimed(claim, unit),
        "ours": found.ours,
        "basis": found.basis,
        "verdict": found.verdict,
        "reason": found.reason,
    }


def summary(name: str, rows: Sequence[Row]) -> str:
    """For a terminal: what was refuted, what confirmed, and how many claims are not comparable for which reason."""
    counts = Counter(row["verdict"] for row in rows)
    head = f"{name}: {len(rows)} claims ({', '.join(f'{counts[verdict]} {verdict}' for verdict in ORDER if counts[verdict])})"
    compared = sorted((row for row in rows if row["verdict"] != NOT_COMPARABLE), key=lambda row: ORDER.index(row["verdict"]))
    reasons = Counter(row["reason"] for row in rows if row["verdict"] == NOT_COMPARABLE)
    return "\n".join([head, *_aligned(compared), *(f"  {NOT_COMPARABLE} ({n}): {reason}" for reason, n in reasons.items())])


def _aligned(rows: Sequence[Row]) -> list[str]:
    widths = {column: max((len(row[column]) for row in rows), default=0) for column in SHOWN}
    return ["  " + "  ".join(row[column].ljust(widths[column]) for column in SHOWN).rstrip() for row in rows]
