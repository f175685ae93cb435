"""Figures as files and as part of a page. The same figure gives the same bytes."""

import io
import logging
import re
import xml.etree.ElementTree as xml
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Drawing

from ablation.files import write_bytes, write_text
from ablation.report.figure import Figure
from ablation.report.figures.style import printable, styled

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
SCREEN = 1.5  # times as large on a screen as in print, at most
UNDATED = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
UNDATED["svg"] = dict.fromkeys(("Date", "Creator", "Format", "Type"))

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each font that it makes smaller
xml.register_namespace("", SVG)
xml.register_namespace("xlink", XLINK)


def save(figure: Figure, folder: Path) -> None:
    """Write ``<name>.pdf`` (fonts embedded), ``.svg`` (text as text) and ``.png`` (300 dpi) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figure.drawing
    for form in ("pdf", "png"):
        write_bytes(folder / f"{figure.name}.{form}", _bytes(drawn, form, figure.name))
    write_text(folder / f"{figure.name}.svg", '<?xml version="1.0" encoding="utf-8"?>\n' + _svg(figure, inline=False))


def svg_element(figure: Figure) -> str:
    """The figure as an ``<svg>`` for a page: it scales with its place, and shares no id with other figures."""
    return _svg(figure, inline=True)


def _svg(figure: Figure, inline: bool) -> str:
    root = xml.fromstring(_svg_bytes(figure))
    for element in root.findall(f"{{{SVG}}}metadata"):
        root.remove(element)
    for parent in list(root.iter()):
        for style in parent.findall(f"{{{SVG}}}style"):
            parent.remove(style)  # it would hold for the whole page; what it says is said below
    _rename(root, re.sub(r"[^A-Za-z0-9_-]", "-", figure.name))
    style = "stroke-linejoin:round;stroke-linecap:butt"
    if inline:
        for name in ("width", "height"):
            root.attrib.pop(name, None)
        style += f";width:100%;max-width:{figure.drawing.get_size_inches()[0] * SCREEN:g}in;height:auto"
    root.attrib.update({"role": "img", "aria-label": printable(figure.alt), "style": style})
    return xml.tostring(root, encoding="unicode")


@lru_cache(maxsize=32)
def _svg_bytes(figure: Figure) -> bytes:
    """The same for the file and the page."""
    return _bytes(figure.drawing, "svg", figure.name)


def _rename(root: xml.Element, name: str) -> None:
    """Begin every id, and what refers to it, with ``name``."""
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))


def _bytes(drawn: Drawing, form: str, name: str) -> bytes:
    file = io.BytesIO()
    with styled():
        matplotlib.rcParams["svg.hashsalt"] = name
        drawn.savefig(file, format=form, metadata=UNDATED[form])
    return file.getvalue()
