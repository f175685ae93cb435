"""The claims of several studies in one table for a terminal of 120 columns, refuted ones first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap

from ablation.claims.table import ORDER, Row
from ablation.claims.verdicts import NOT_COMPARABLE

WIDTHS = {"study": 16, "published": 42, "claimed": 20, "ours": 36}
GAP = "  "


def overview(studies: Mapping[str, Sequence[Row]]) -> str:
    """What was refuted, what confirmed, and what could not be told for which reason; rows as in ``claims.csv``, by study."""
    rows = [(name, row) for name, found in studies.items() for row in found]
    counts = Counter(row["verdict"] for _, row in rows)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict])
    lines = [f"{len(rows)} claims of {len(studies)} studies: {told or 'none'}"]
    for verdict in ORDER:
        chosen = [(name, row) for name, row in rows if row["verdict"] == verdict]
        if chosen:
            heads = {**{name: name for name in WIDTHS}, "ours": "why" if verdict == NOT_COMPARABLE else "ours"}
            lines += [
                "",
                verdict.upper(),
                *_entry(heads),
                *(line for name, row in chosen for line in _entry(_texts(name, row))),
            ]
    return "\n".join(lines)


def _texts(study: str, row: Row) -> dict[str, str]:
    number = f"{row['ours']} ({row['basis']})" if row["ours"] else ""
    found = "; ".join(text for text in (number, row["reason"]) if text)
    return {"study": study, "published": row["says"], "claimed": row["claimed"], "ours": found}


def _entry(texts: Mapping[str, str]) -> list[str]:
    """One row, in as many lines as it needs."""
    columns = [wrap(texts[name], width) for name, width in WIDTHS.items()]
    lines = zip_longest(*columns, fillvalue="")
    return [GAP.join(text.ljust(width) for text, width in zip(line, WIDTHS.values(), strict=True)).rstrip() for line in lines]
