"""The report about the layouts: how much is used, what is not and why, and on which lines.

``quality.json`` for programs, ``quality.md`` for people, ``rejected.csv`` with every single case. What a path, a caption or a
label says is text in all three, whatever it looks like.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from ablation.errors import UserError
from ablation.files import write_csv, write_json, write_text
from ablation.systems.kolors.data.causes import WRITTEN_OTHERWISE, Cause
from ablation.systems.kolors.data.validation import Found, Rejected

LINES = 20
"""Line numbers listed of each cause."""
LABELS = 30
"""Labels listed, the most frequent ones."""
QUALITY, PAGE, REJECTED = "quality.json", "quality.md", "rejected.csv"


def write_quality(found: Found, about: str, out: Path) -> None:
    """All three files; ``about`` names what was checked.

    UserError where the boxes are written otherwise than declared, and, with the causes, where nothing is left.
    """
    summary = summarise(found, about)
    write_json(out / QUALITY, summary)
    write_text(out / PAGE, page(summary))
    if found.rejected:
        write_csv(out / REJECTED, [_case(rejected) for rejected in found.rejected])
    found.evidence.refuse(about)
    if not found.layouts:
        causes = "".join(f"\n  {cause}: {counted['rows'] + counted['boxes']}" for cause, counted in summary["causes"].items())
        raise UserError(f"{about}: none of the {found.rows} rows can be used{causes}{_advice(found)}")


def _advice(found: Found) -> str:
    otherwise = any(rejected.fault.cause in WRITTEN_OTHERWISE for rejected in found.rejected)
    return f"\n  {found.evidence.remedy()}" if otherwise else ""


def summarise(found: Found, about: str) -> dict[str, Any]:
    """Counts of rows and boxes, by cause with the first lines, and the most frequent labels."""
    causes = {cause: [r for r in found.rejected if r.fault.cause == cause] for cause in Cause}
    labels = Counter(box.label for layout in found.layouts for box in layout.boxes)
    return {
        "about": about,
        "rows": {"read": found.rows, "used": len(found.layouts)},
        "boxes": {"read": found.boxes, "used": sum(len(layout.boxes) for layout in found.layouts)},
        "pictures": len({layout.image for layout in found.layouts}),
        "causes": {str(cause): _counted(cases) for cause, cases in causes.items() if cases},
        "labels": dict(labels.most_common(LABELS)),
    }


def page(summary: dict[str, Any]) -> str:
    """The summary in Markdown."""
    rows, boxes = summary["rows"], summary["boxes"]
    lines = [
        f"# Layouts of {as_text(summary['about'])}",
        "",
        f"{rows['used']} of {rows['read']} rows and {boxes['used']} of {boxes['read']} boxes are used,"
        f" of {summary['pictures']} pictures.",
        "A bad box costs itself, a row is lost with its last box. `rejected.csv` lists every case.",
        "",
        "| not used because | rows | boxes | on lines |",
        "|---|--:|--:|---|",
        *(
            f"| {cause} | {c['rows']} | {c['boxes']} | {', '.join(map(str, c['lines']))}{' ...' * c['more']} |"
            for cause, c in summary["causes"].items()
        ),
        "",
        "| label | boxes |",
        "|---|--:|",
        *(f"| {as_text(label)} | {count} |" for label, count in summary["labels"].items()),
    ]
    return "\n".join(lines) + "\n"


def as_text(text: str) -> str:
    """``text`` for Markdown and HTML: whatever could mean something there becomes a character's number."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def _counted(cases: list[Rejected]) -> dict[str, Any]:
    lines = list(dict.fromkeys(case.line for case in cases))
    whole = sum(case.box is None for case in cases)
    return {"rows": whole, "boxes": len(cases) - whole, "lines": lines[:LINES], "more": len(lines) > LINES}


def _case(rejected: Rejected) -> dict[str, Any]:
    """A line of the table; texts stand in quotes: no line breaks, and nothing that a spreadsheet computes."""
    fault, box = rejected.fault, "" if rejected.box is None else rejected.box
    return {"line": rejected.line, "box": box, "cause": str(fault.cause), "image": repr(rejected.image), "said": fault.said}
