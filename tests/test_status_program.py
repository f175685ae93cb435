"""The live view as a program: alone, in a pipe, in a terminal."""

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from fcntl import ioctl

import pytest
from conftest import ROOT
from runfolders import Results

PROGRAM = ROOT / "scripts/status.py"
ESCAPE = "\x1b["
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.fixture
def results(tmp_path):
    """A study with a run that trains and one that was killed."""
    results = Results(tmp_path, {"busy": {}, "lost": {}})
    results.trains("busy")
    results.trains("lost", ago=500)
    results.lease("lost", ago=400)
    return results


def status(*arguments, **environment):
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def heed_ctrl_c() -> None:
    """A shell that runs something in the background has it ignore SIGINT, and all that it starts: these tests, perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_terminal(*arguments, columns=80, until=None, **environment):
    """What the program writes to a terminal to its end, and its exit status; Ctrl-C comes once ``until`` stands there."""
    terminal, of_program = pty.openpty()
    ioctl(of_program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    program = subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, arguments)],
        **dict.fromkeys(("stdin", "stdout", "stderr"), of_program),
        env={**known, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    os.close(of_program)
    text = b""
    with suppress(OSError):  # the program has ended
        while piece := os.read(terminal, 4096):
            text += piece
            if until and until.encode() in text:
                program.send_signal(signal.SIGINT)
                until = None
    os.close(terminal)
    return text.decode(), program.wait(60)


def test_in_a_pipe_it_is_plain_text(results, tmp_path):
    found = status("--results", tmp_path)
    assert found.returncode == 0, found.stderr
    assert ESCAPE not in found.stdout
    lines = found.stdout.splitlines()
    assert lines[0].startswith("full/s  █")
    assert lines[1] == "2 runs: 1 stopped, 1 training"
    assert lines[3].split()[:2] == ["lost", "stopped"]
    assert "no sign of life" in lines[4]


def test_without_unicode_the_bar_is_plain_too(results, tmp_path):
    found = status("--results", tmp_path, PYTHONIOENCODING="ascii")
    assert found.stdout.startswith("full/s  ####")


def test_a_study_that_there_is_not_is_an_error(results, tmp_path):
    found = status("z", "--results", tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: ")


def test_before_any_study_it_says_so(tmp_path):
    assert status("--results", tmp_path / "none").stdout == "no study was started yet\n"


def test_it_needs_neither_torch_nor_other_heavy_libraries(results, tmp_path):
    script = (
        f"import sys, runpy; sys.argv = ['status.py', '--results', {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'snakemake'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parent)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr


def test_in_a_terminal_it_has_colours_and_fits(results, tmp_path):
    text, code = in_terminal("--results", tmp_path, columns=60)
    assert code == 0
    assert COLOUR.search(text)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 60


def test_no_color_is_heeded(results, tmp_path):
    text, code = in_terminal("--results", tmp_path, NO_COLOR="1")
    assert code == 0
    assert "stopped" in text
    assert ESCAPE not in text


def test_watching_lasts_until_ctrl_c_and_leaves_the_last_look(results, tmp_path):
    text, code = in_terminal("--watch", "--results", tmp_path, until="no sign of life")
    assert code == 0, text
    own_page, after = text.split("\x1b[?1049l")  # back to the terminal's first page
    assert "\x1b[?1049h" in own_page
    assert "no sign of life" in after
    assert "Traceback" not in text


def test_watching_needs_a_terminal(results, tmp_path):
    found = status("--watch", "--results", tmp_path)
    assert found.returncode == 2
    assert "needs a terminal" in found.stderr


@pytest.mark.parametrize(("given", "shown"), [([], "--watch"), (["STUDY=first"], "--watch first")])
def test_make_shows_all_studies_or_the_one_that_is_named(given, shown):
    """STUDY has a default, which is for the demo."""
    command = ["make", "--no-print-directory", "--dry-run", "watch", *given]  # the tests may run below another make
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1].replace("'", "").split("status.py ")[1].strip() == shown
