"""What the documentation says: its pages, their commands and their links."""

import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md") if (ROOT / name).exists()),
    *sorted((ROOT / "docs").glob("*.md")),
]
SHELL = {"sh", "bash", "console"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PROGRAMS = (
    "make ",
    "snakemake ",
    "python ",
    "hf ",
    "tensorboard ",
    "pip ",
    "git ",
    ".venv/bin/",
    "mkdocs ",
    "apptainer ",
    "docker ",
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")


class Command(NamedTuple):
    """A line of a page that its reader may run."""

    page: Path
    text: str

    @property
    def bare(self) -> str:
        """Without the folder of the environment's programs and assignments before them; the study's name is any."""
        bare = re.sub(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?", "", self.text)
        return re.sub(r"studies=(mine|vggt-eth3d)\b", "studies=first", bare)

    def words(self) -> list[str]:
        """As a shell splits it, without the assignments before it, and without the comment behind it."""
        words = shlex.split(self.text, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        return words


def fences(text: str) -> list[tuple[str, str]]:
    """(language, content) of all fenced blocks, without the block's own indentation."""
    return [(language, re.sub(f"^{indent}", "", content, flags=re.M)) for indent, language, content in FENCE.findall(text)]


def commands(page: Path) -> Iterator[Command]:
    """The lines of its shell blocks, one a command, then what stands in its prose as a whole command."""
    text = page.read_text()
    for language, content in fences(text):
        if language in SHELL:
            for line in content.replace("\\\n", " ").splitlines():
                for command in _parts(line):
                    yield Command(page, command)
    for span in SPAN.findall(FENCE.sub("", text)):
        command = " ".join(span.split())
        if command.startswith(PROGRAMS):
            yield Command(page, command)


def _parts(line: str) -> list[str]:
    """The commands of one line."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars="&")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return [" ".join(part) for part in parts if part]


def links(page: Path) -> list[str]:
    """Where its links and pictures lead."""
    return LINK.findall(SPAN.sub("", FENCE.sub("", page.read_text())))


def anchors(page: Path) -> set[str]:
    """The names of its headings, as GitHub and MkDocs make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M):
        plain = unicodedata.normalize("NFKD", re.sub(r"[`*_]", "", heading)).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found
