"""Texts are UTF-8, whatever the locale of the machine."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from finished_study import finished_study

TITLE, CLAIM = "Größe × 5 µm", "δ < 1.25"
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # Python then reads and writes ASCII, if it is not told
OF_TEXT = {"read_text", "write_text", "open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "FileHandler", "Popen", "run"}
# Whose open or write_text is another; model is one of pycolmap.
NO_TEXT = {"os", "av", "tarfile", "gzip", "Image", "Database", "webbrowser", "model"}


def without_encoding(path: Path) -> Iterator[str]:
    """Calls that read or write text in the encoding of the locale."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        known, name, owner = {word.arg for word in node.keywords}, *_name(node.func)
        if name not in OF_TEXT or "encoding" in known or owner in NO_TEXT or (name.endswith("_text") and owner is None):
            continue
        if name in ("Popen", "run"):
            wrong = known & {"text", "universal_newlines"}
        else:
            wrong = name.endswith("_text") or name == "FileHandler" or "b" not in _mode(node, first=owner is None)
        if wrong:
            yield f"{path.name}:{node.lineno}: {ast.unparse(node)}"


def _name(function: ast.expr) -> tuple[str, str | None]:
    """Of a function, and of what it belongs to; None where it is a name of its own, as ``open`` and ours are."""
    if isinstance(function, ast.Attribute):
        owner = function.value
        return function.attr, getattr(owner, "id", getattr(owner, "attr", ""))
    return getattr(function, "id", ""), None


def _mode(call: ast.Call, first: bool) -> str:
    given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[int(first) :][:1]
    return str(getattr(given[0], "value", "")) if given else "r"


def test_no_program_leaves_an_encoding_to_the_locale():
    found = [line for path in sorted((ROOT / "scripts").rglob("*.py")) for line in without_encoding(path)]
    assert not found


def test_no_rule_does_either():
    texts = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("rules/*.smk"), ROOT / "Snakefile"]}
    calls = [
        call
        for text in texts.values()
        for call in re.findall(r"(?:read_text|write_text|(?<!os\.)\bopen)\([^()]*\)|text=True", text)
    ]
    assert calls and not [call for call in calls if "encoding=" not in call]


def test_the_search_finds_each_kind(tmp_path):
    lines = {
        "p.read_text()": 1, "p.write_text(x)": 1, "open(p)": 1, "open(p, 'w')": 1, "p.open()": 1, "p.open('a', newline='')": 1,
        "NamedTemporaryFile('w')": 1, "subprocess.run(c, text=True)": 1, "logging.FileHandler(p)": 1, "p.open(mode='w')": 1,
        "p.read_text(encoding='utf-8')": 0, "open(p, 'rb')": 0, "p.open('xb')": 0, "os.open(p, 0)": 0, "subprocess.run(c)": 0,
        "subprocess.run(c, encoding='utf-8')": 0, "write_text(p, x)": 0, "read_text(p, 5)": 0,
    }  # fmt: skip
    for line, wrong in lines.items():
        (tmp_path / "f.py").write_text(line)
        assert len(list(without_encoding(tmp_path / "f.py"))) == wrong, line


def run(project: Path, locale: dict[str, str], name: str, *arguments: str) -> str:
    """What a program, called by hand in ``project``, prints."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO"))}
    command = [sys.executable, ROOT / "scripts" / name, *arguments]
    done = subprocess.run(
        command, cwd=project, env={**plain, **locale}, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """With a finished study whose title and claims are not ASCII."""
    root = tmp_path_factory.mktemp("study")
    folder = finished_study(root, {"title": TITLE})
    claims = folder / "claims.csv"
    claims.write_text(claims.read_text(encoding="utf-8").replace("it has 9 images", CLAIM), encoding="utf-8")
    return root


def test_a_locale_without_umlauts_changes_no_byte_of_table_and_report(project):
    """Collected, reported and listed by the programs, as the rules call them, and by hand."""
    made = {}
    for name, locale in {"utf-8": {"LC_ALL": "C.UTF-8"}, "ascii": PLAIN}.items():
        place = project.parent / f"{project.name}-{name}"
        shutil.copytree(project, place)
        folder = "results/demo/s"
        collected = ["--parquet", f"{folder}/runs.parquet", "--csv", f"{folder}/runs.csv", "--submitted", "fits", "tight"]
        run(place, locale, "collect_runs.py", "--plan", f"{folder}/plan.csv", "--folder", folder, *collected)
        run(place, locale, "write_report.py", "--study", f"{folder}/study.json", "--folder", folder)
        run(place, locale, "write_index.py", "--results", "results")
        made[name] = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    different = [str(path) for path in made["utf-8"] if made["utf-8"][path] != made["ascii"].get(path)]
    assert not different and made["utf-8"].keys() == made["ascii"].keys()
    folder = Path("results/demo/s")
    assert TITLE.encode() in made["ascii"][folder / "report.html"]
    assert CLAIM.encode() in made["ascii"][folder / "tables/claims.csv"]


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'scripts')!r})\nfrom ablation.cli import call\n"
        "call(lambda: sys.stdout.write('\\u03b4 < 1.25\\n'))\n"
    )
    done = subprocess.run([sys.executable, program], env={**os.environ, **PLAIN}, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"\\u03b4 < 1.25\n", done.stderr
