"""The workflow on studies of strangers: what is broken starts no job, what is odd but right reaches no shell and no page."""

import json
import re
import shlex
import subprocess
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import STUDY
from report_study import page_of, write_study
from test_hostile_studies import BROKEN
from test_workflow import copy_project, snakemake

from ablation.collect import collect
from ablation.report.results import Results
from ablation.study import load_study
from ablation.sweep import expand

ODD_TITLE = "<script>alert(1)</script> $(touch pwned) `touch pwned`; touch pwned # {{7*7}} {x} $\\frac{ 'a' \"b\""
ODD_PATH = "weights/a  b;$(touch pwned)`touch pwned` & touch pwned | 'q' \"r\" $HOME %s * ~ # é\\.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


@pytest.mark.parametrize("what", ["a bomb of aliases", "an object of Python", "a billion runs"])
def test_a_broken_study_starts_no_job(project, what):
    (project / "config/studies/mine.yaml").write_text(BROKEN[what])
    done = snakemake(project, "-n", config=["studies=mine", "scale=full"])
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said and "Job stats" not in said and "rule " not in said
    assert len(re.findall(r"^error: ", said, re.MULTILINE)) == 1 and "mine" in said
    assert not list(project.rglob("pwned"))


def test_an_odd_study_reaches_no_shell(project):
    study = STUDY.read_text().replace("resources/vggt-demo.safetensors", json.dumps(ODD_PATH))
    path = project / "config/studies/odd.yaml"
    path.write_text(study.replace("title: VGGT with LoRA on ETH3D", f"title: {json.dumps(ODD_TITLE)}"))
    weights = project / ODD_PATH
    weights.parent.mkdir()
    weights.write_bytes(b"")
    run = expand(load_study(path), "odd")[0]
    wanted = [f"results/demo/odd/runs/{run.id}/training.json", f"results/demo/odd/base/{run.base}/metrics.json"]
    done = snakemake(project, *wanted, "-n", "-p", config=["studies=odd"])
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    said = done.stdout + done.stderr
    commands = [line for line in said.splitlines() if "--weights" in line]
    assert len(commands) == 3  # of the frozen part, of what is pretrained, of the run
    for command in commands:
        arguments = re.fullmatch(r".*\. \S+/log_to\.sh results/\S+; .* python (.*)", command)[1]
        # The very text that Snakemake hands to bash, with a program that tells what it was given.
        printed = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {arguments}"], cwd=project, capture_output=True, text=True, check=True
        )
        told = printed.stdout.split("\0")
        assert f"weights={ODD_PATH}" in told and told[:-1] == shlex.split(arguments)
    assert not list(project.rglob("pwned"))


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_nothing_of_a_study_or_its_results_is_rendered(tmp_path):
    """Titles, paths, and what evaluations took from the data: names of items, notes; and of machines."""
    odd = {"title": ODD_TITLE, "model": {"weights": ODD_PATH}, "sweep": {"strategy": ["A", "C"], "rank": 4, "seed": [0, 1]}}
    runs, results = write_study(tmp_path, load_study(STUDY, odd))
    for run in runs:
        path = tmp_path / "runs" / run.id / "metrics.json"
        content = json.loads(path.read_text())
        for items in ("items", "items_before"):
            content[items] = [
                {**content[items][0], "item": name} for name in (ODD_TITLE, "<img src=x onerror=alert(1)>", "$\\frac{")
            ]
        content["notes"] = {"<b>": ODD_TITLE}
        path.write_text(json.dumps(content))
        manifest = path.with_name("manifest.json")
        manifest.write_text(
            json.dumps({**json.loads(manifest.read_text()), "cpu": ODD_TITLE, "host": "<script>alert(2)</script>"})
        )
        (path.parent / "pictures").mkdir()
        (path.parent / "pictures" / '"><script>alert(3).png').write_bytes(b"\x89PNG")
    plain = Page(page_of(results, tmp_path, "odd"))
    results = Results(results.study, collect(tmp_path / "plan.csv", tmp_path / "runs", ("fits", "tight")))
    page = Page(page_of(results, tmp_path, "odd"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"b", "iframe", "object", "embed", "base"}
    scripts, own = ([attributes for tag, attributes in one.elements if tag == "script"] for one in (page, plain))
    assert scripts == own and not any("src" in attributes for attributes in scripts)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    sources = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    known = r"data:image/(png|webp|svg\+xml);base64,|#|runs/[\w.-]+/|(tables|figures)/[\w.-]+$|http://|https://"
    assert all(re.match(known, value or "") for value in sources)
    drawn = [Page(b64decode(value.partition(",")[2]).decode()) for value in sources if value.startswith("data:image/svg")]
    assert drawn and not any(tag in ("script", "image", "foreignobject", "style") for one in drawn for tag, _ in one.elements)
    assert all(
        value.startswith("data:")
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if tag == "img" and name == "src"
    )
    assert "<script>alert(1)</script>" in page.text and "49" not in re.findall(r"pwned # (\S+)", page.text)
