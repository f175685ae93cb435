"""The report as an ablation section on paper, two columns wide, by typst, with the fonts that typst brings."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typst
from matplotlib import rc_context

from ablation.report.content import Panels, Report, Section
from ablation.report.figure import Figure
from ablation.report.pdf.choice import LEFT_OUT, chosen, cut
from ablation.report.pdf.text import all_plain
from ablation.report.table import Table
from ablation.systems.opening import opened

SOURCE = Path(__file__).with_name("report.typ")
COLUMN_INCHES = 4.5  # a drawing that is wider goes across both columns
COLUMN_MM, LABEL_MM, PANELS_MM = 84, 14, 75  # a column's width, that of the names beside panels, the height of all panels
FIGURE_MM = 72  # the height of a drawing at most: no page is left more than a third blank
COLUMN_PANELS = 3  # side by side in one column
PANEL_PIXELS = (400, 400)  # more is not seen in print
WRAPS = 24  # characters of a column of text from which on it may be broken into lines


def report_pdf(report: Report) -> bytes:
    """The same bytes for the same report, accessible by PDF/UA-1.

    Letters that typst's fonts lack (Chinese, say) are the machine's, where it has them, and it is no UA-1 then.
    """
    with TemporaryDirectory() as folder:
        source = typst_source(report, Path(folder))
        try:
            return typst.compile(source, root=folder, format="pdf", ignore_system_fonts=True, pdf_standards="ua-1")
        except typst.TypstError as error:
            if "could not be displayed with font" not in str(error):
                raise
            return typst.compile(source, root=folder, format="pdf")


def typst_source(report: Report, folder: Path) -> Path:
    """What typst reads, written into ``folder``: its source, which holds no data, the data, figures and pictures."""
    content = {
        "title": report.title or report.name,
        "subtitle": f"Study {report.name}, scale {report.scale}: {len(report.runs)} runs",
        "summary": list(report.summary),
        "sections": [shown for section in report.sections if (shown := _section(section, folder))],
    }
    for number, block in enumerate(block for section in content["sections"] for block in section["blocks"]):
        block["label"] = f"block-{number}"
    (folder / "report.json").write_text(json.dumps(all_plain(content)), encoding="utf-8")
    return Path(shutil.copy(SOURCE, folder))


def _section(section: Section, folder: Path) -> dict[str, Any] | None:
    """A table that has no row left is said in a sentence; None where nothing is left."""
    blocks, text = [], list(section.text)
    for block in section.blocks:
        if isinstance(block, Table):
            block, note = chosen(block)
            if note and not block.rows:
                text.append(note)
            elif block.rows and block.name not in LEFT_OUT:
                blocks.append(_table(block, note))
        elif isinstance(block, Figure):
            blocks.append(_figure(block, folder))
        elif block.rows:
            blocks.append(_panels(block, folder))
    return {"title": section.title, "text": text, "blocks": blocks} if blocks or text else None


def _table(table: Table, told: str) -> dict[str, Any]:
    table, note = cut(table)
    shaded = "Shaded: the baseline." if any(row.kind == "baseline" for row in table.rows) else ""
    longest = [
        max((len(row.cells[i].text) for row in table.rows if row.kind != "group"), default=0) for i in range(len(table.columns))
    ]
    return {
        "kind": "table",
        "title": table.title,
        "caption": table.caption,
        "note": " ".join(text for text in (told, note, shaded) if text),
        "columns": [
            {"head": column.head, "numeric": bool(column.numeric), "wraps": not column.numeric and length > WRAPS}
            for column, length in zip(table.columns, longest, strict=True)
        ],
        "rows": [
            {"kind": row.kind, "cells": [{"text": cell.text, "best": bool(cell.best)} for cell in row.cells]}
            for row in table.rows
        ],
    }


def _figure(figure: Figure, folder: Path) -> dict[str, Any]:
    file = f"figure-{len(list(folder.iterdir()))}.svg"
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": figure.name}):
        figure.drawing.savefig(folder / file, metadata={"Date": None})
    width, height = figure.drawing.get_size_inches()
    told = {"title": figure.title, "caption": figure.caption, "note": "", "alt": figure.alt}
    wide = bool(width > COLUMN_INCHES)
    millimetres = float(min(2 * COLUMN_MM if wide else COLUMN_MM, FIGURE_MM * width / height))
    return {"kind": "figure", "file": file, "wide": wide, "width": millimetres, **told}


def _panels(panels: Panels, folder: Path) -> dict[str, Any]:
    """As many rows as a page holds, the first one anyway."""
    wide = len(panels.columns) > COLUMN_PANELS
    width = ((2 if wide else 1) * COLUMN_MM - LABEL_MM) / len(panels.columns)
    rows, height = [], 0.0
    for name, pictures in panels.rows:
        files = [_picture(picture, folder) for picture in pictures]
        height += max((_aspect(folder / file) * width for file in files if file), default=0)
        if rows and height > PANELS_MM:
            break
        rows.append({"name": name, "files": files})
    note = f"The first {len(rows)} of {len(panels.rows)}." if len(rows) < len(panels.rows) else ""
    told = {"title": panels.title, "caption": panels.caption, "note": note, "wide": wide}
    return {"kind": "panels", "columns": list(panels.columns), "rows": rows, **told}


def _picture(picture: Path | None, folder: Path) -> str | None:
    if picture is None:
        return None
    file = f"picture-{len(list(folder.iterdir()))}.png"
    with opened(picture) as image:
        image.thumbnail(PANEL_PIXELS)
        image.save(folder / file)
    return file


def _aspect(picture: Path) -> float:
    with opened(picture) as image:
        return image.height / image.width
