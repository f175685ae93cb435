"""The documentation: each command runs or is accepted, links lead somewhere, and the site that is built needs no network."""

import argparse
import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT
from documents import PAGES, SHELL, Command, anchors, commands, fences, links
from scenes import write_scene
from workflow import copy_project

from ablation.scaffold import new_study, new_system
from ablation.study import load_study

RUN = (
    r"mkdir |cp |make (help|docs|vram-table|speed-table|schemas)$|snakemake (-n |--unlock)|"
    r"python scripts/(status.py$|write_report)"
)
"""What is run as it stands, page by page, in one copy of the project."""

ELSEWHERE = {
    "make demo$|snakemake --profile local$": "tests/test_workflow.py::test_from_photographs_to_report",
    "snakemake --profile local --config studies=first scale=demo": "tests/test_workflow.py::test_from_photographs_to_report",
    "make (demo-all|demo STUDY=)": "all demos take a quarter of an hour; a small one of each runs in its system's tests",
    "make new-|snakemake --profile local --config studies=toy": "tests/test_scaffold.py::"
    "test_a_new_study_is_planned_and_a_new_system_runs_to_its_report",
    "make install": "what these tests run in was installed so",
    "make (test|lint)$|python -m pytest": "these tests, and CI's first line",
    "make test-page": "tests/browser/test_page.py::test_the_index_leads_to_the_pages",
    "make test-install": "tests/test_environments.py::test_a_folder_of_wheels_is_enough_without_a_network",
    "make test-crate": "tests/test_crate.py::test_it_is_valid",
    "make test-slurm|snakemake --profile slurm": "tests/slurm/test_slurm.py::test_the_demo_study_by_its_literal_command",
    "snakemake --executor cluster-generic": "tests/slurm/test_other_clusters.py::"
    "test_a_study_is_probed_trained_and_reported_where_there_is_no_slurm",
    "make fault-matrix": "tests/slurm/test_slurm_faults.py::test_a_run_survives",
    "make watch": "tests/test_status_program.py::test_watching_lasts_until_ctrl_c_and_leaves_the_last_look",
    "make claims": "tests/test_claims_overview.py::test_the_program_names_studies_by_their_folders",
    "make picture-table": "tests/test_pictures.py::test_the_page_says_what_every_system_does_with_every_kind",
    "make gpu-records": "tests/test_gpu_records.py::test_every_system_on_a_cpu",
    "snakemake -n$": "tests/test_workflow.py::test_a_plan_of_another_version_of_the_study_is_made_again",
    "snakemake plan": "tests/test_workflow_plan.py::test_full_scale_plan_needs_neither_data_nor_weights",
    "snakemake .*sweep={rank: .4, 8, 16.}": "tests/test_workflow.py::test_a_new_rank_runs_only_its_runs",
    "snakemake -c2 --config scale=full 'sweep=": "tests/test_workflow_plan.py::test_overrides_of_the_command_line",
    "snakemake --profile local --config .*scale=full": "released weights and GPUs are needed",
    "snakemake --report": "tests/test_workflow.py::test_all_forms_of_the_report_are_there_and_snakemake_s_own_carries_them",
    "snakemake probe --profile slurm": "tests/test_probe_workflow.py::test_every_cell_is_measured_without_data_or_weights",
    "snakemake largest_batch --profile": "tests/test_probe_workflow.py::test_the_largest_batch_fits_and_the_next_does_not",
    "python scripts/advise.py": "tests/test_advise.py::test_the_program_advises",
    "python scripts/compare_config.py": "tests/test_recommended.py::test_gpus_that_cannot_share_the_batch_are_told",
    "snakemake verify ": "tests/test_verify_example.py::test_a_run_of_the_example_trained_again_is_equal_or_within_tolerance",
    "make archive|python scripts/archive_study": "tests/test_archive.py::test_a_changed_byte_is_found_and_its_file_named",
    "make restore": "tests/test_archive.py::test_what_is_restored_is_what_was_archived_and_its_report_comes_out_equal",
    "snakemake crate": "tests/test_crate.py::test_every_file_is_in_it_with_its_size_and_checksum",
    "snakemake --profile local --software-deployment-method": "tests/test_environments.py::test_conda_has_the_same_files",
    "make (wheelhouse|pins)": "tests/test_environments.py::test_a_folder_of_wheels_is_enough_without_a_network",
    "(docker|apptainer) ": "there is neither here; tests/test_environments.py compares the recipes with the lists",
    "python scripts/status.py .*--all": "tests/test_status_program.py::test_in_a_pipe_it_is_plain_text",
    "python tests/parity.py": "tests/test_parity.py::test_command_line_fails_beyond_the_tolerance",
    "python benchmarks/vram_peft.py": "the committed records came of it; it takes minutes",
    "make benchmarks": "an hour; each row of its table names a test, and tests/test_speed_table.py looks for it",
    "hf download|mv models/t5": "gigabytes from a host that tests do not reach",
    "tensorboard |tail -f": "shows what a person looks at, and does not end",
    r"\$EDITOR": "opens an editor",
}
"""What is not: the test that runs the same, or why none can. These are checked as far as that goes without running them."""

LANGUAGES = {*SHELL, "text", "yaml", "json", "python", "bibtex", "dockerfile"}
EVERY = list({command.bare: command for page in PAGES for command in commands(page)}.values())


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with these tests' environment as its .venv, and a reader's scenes and edits."""
    copy = copy_project(tmp_path_factory.mktemp("clone") / "project")
    (copy / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        (copy / ".venv" / entry.name).symlink_to(entry)
    (copy / ".venv/installed").unlink(missing_ok=True)
    (copy / ".venv/installed").touch()
    write_scene(copy / "my_scenes", "hall", seed=1)
    for name in ("mine", "first"):
        new_study(name, "vggt", copy)
    new_system("toy", copy)
    return copy


@pytest.fixture
def shell(project):
    """Runs a line in the project as its reader's shell would, the environment's programs on the path, and expects success."""

    def run(line: str) -> str:
        path = f"{project / '.venv/bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
        done = subprocess.run(
            line, shell=True, executable="/bin/bash", cwd=project, env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("command", EVERY, ids=lambda command: f"{command.page.stem}: {command.text[:60]}")
def test_a_command_runs_or_is_accepted(command, project, shell):
    if re.match(RUN, command.bare):
        shell(command.text)
        return
    known = any(re.match(pattern, command.bare) for pattern in ELSEWHERE)
    assert known, f"{command.page.name}: no test of `{command.text}`; run it in RUN, or name its test in ELSEWHERE"
    words = command.words()
    ACCEPTED[Path(words[0]).name](words[1:], command, project, shell)


def accept_make(words, command, project, shell):
    """Make knows how, and each of our programs that it would call takes the arguments."""
    for line in shell(f"make -n {' '.join(words)}").splitlines():
        called = re.search(r"\.venv/bin/(python) (scripts/.*)", line)
        if called:
            accept_python(Command(command.page, called[2]).words(), command, project, shell)


def accept_snakemake(words, command, project, shell):
    """A dry run finds all rules, inputs and settings."""
    if "--report" in words or "cluster-generic" in words:
        return  # wants what is finished (so does verify, which takes the example), or a plugin that is not installed
    line = shlex.join(["-n", *words]).replace("--software-deployment-method conda", "")  # there is no conda here
    if "verify" in words:
        line = line.replace("studies=vggt-eth3d", "reference=docs/example")
    assert "dry-run" in shell(f"{command.words()[0]} {line}")


class Accepted(BaseException):
    """A program has read its arguments, and would begin."""


def accept_python(words, command, project, shell):
    """The program's parser takes the arguments."""
    if words[:2] == ["-m", "pytest"]:
        assert all(list(ROOT.glob(name)) for name in words[2:])
        return
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser, *arguments):
        parse(parser, *arguments)
        raise Accepted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Accepted):
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", [str((ROOT / words[0]).parent), *sys.path])
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def accept_hf(words, command, project, shell):
    """The options are known, and no pattern stands where the name of a file is expected."""
    from huggingface_hub.cli.hf import app

    context = app.commands[words[0]].materialize().make_context("hf", words[1:])
    names, patterns = context.params["filenames"] or [], context.params["include"] or []
    assert not any("*" in name for name in names) and not (names and patterns)


def accept_options(words, command, project, shell):
    """The program is there, and its help knows the options."""
    program = command.words()[0]
    told = shell(f"{program} --help")
    assert all(word in told for word in words if word.startswith("-"))


def accept_there(words, command, project, shell):
    """What it is about is a file of the project, or what a command before it makes."""
    text = (ROOT / command.page).read_text()
    assert all((project / word).exists() or text.count(word.split("/")[1]) > 1 for word in words if "/" in word)


ACCEPTED = {
    "make": accept_make,
    "snakemake": accept_snakemake,
    "python": accept_python,
    "hf": accept_hf,
    "docker": accept_there,
    "apptainer": accept_there,
    "tensorboard": accept_options,
    "tail": accept_options,
    "mv": accept_there,
    "$EDITOR": accept_there,
}


def test_each_entry_is_of_a_command_and_its_test_is_there():
    for pattern, where in ELSEWHERE.items():
        assert any(re.match(pattern, command.bare) for command in EVERY), f"no command is like {pattern}"
        if "::" in where:
            path, name = where.split("::")
            assert f"def {name}(" in (ROOT / path).read_text(), where


def test_downloads_that_messages_name_are_accepted(project, shell):
    trees = [ast.parse(path.read_text()) for path in (ROOT / "scripts").rglob("*.py")]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str)]
    told = [found for text in texts for found in re.findall(r"hf download [^\n(]*", text.replace("\\\n", ""))]
    assert len(told) > 5
    for text in told:
        accept_hf(Command(ROOT, text).words()[1:], None, project, shell)


def test_every_block_says_what_it_is_and_studies_in_pages_are_studies(tmp_path):
    for page in PAGES:
        for language, content in fences(page.read_text()):
            assert language in LANGUAGES, f"{page.name}: a block of {language or 'nothing'}"
            if language == "yaml" and content.startswith("system:") and "strategies:" in content:
                (tmp_path / "study.yaml").write_text(content)
                assert load_study(tmp_path / "study.yaml").strategies


def test_the_first_study_of_the_page_is_one(project, tmp_path):
    blocks = [content for language, content in fences((ROOT / "docs/first-study.md").read_text()) if language == "yaml"]
    study = (project / "config/studies/first.yaml").read_text()
    study = study.replace("\nsweep:\n", f"{blocks[0]}\nsweep:\n", 1)
    study = re.sub(r"^    sweep: .*\n", blocks[1], study, flags=re.M)
    (tmp_path / "first.yaml").write_text(study)
    loaded = load_study(tmp_path / "first.yaml")
    assert loaded.sweep.strategy == ["A", "D"] and "D" in loaded.strategies


def test_links_of_pages_lead_to_files_and_headings():
    for page in PAGES:
        for link in links(page):
            if re.match(r"https://[\w.-]+\.\w+(/[\w./%#-]*)?$", link):
                continue  # as far as that can be told without a network
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


class References(HTMLParser):
    """The names in an HTML file, what it leads to, and what it has the browser load."""

    def __init__(self, text: str):
        super().__init__()
        self.names: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        loaded = [given.get("src"), given.get("href") if tag == "link" else None]
        self.loaded += [address for address in loaded if address]
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"])


def test_the_site_builds_and_needs_no_network(project, shell):
    shell("make docs")
    site = project / "site"
    pages = {path: References(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert {"index.html", "first-study.html", "numbers.html"} <= {path.name for path in pages}
    for path, page in pages.items():
        assert not [address for address in page.loaded if re.match("(https?:)?//", address)], path
        if path.is_relative_to(site / "example"):
            continue
        for target in [*page.targets, *page.loaded]:
            if re.match(r"https://|data:|mailto:", target):
                continue
            file, _, name = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), f"{path.name}: {target}"
            if name and there.suffix == ".html":
                assert name in pages[there].names, f"{path.name}: {target}"
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//", styles)
    assert (site / "example/tables/main.md").exists() and (site / "example/report.html").exists()
