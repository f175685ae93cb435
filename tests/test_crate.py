"""The RO-Crate of a finished study: our own checks, and those of roc-validator (make test-crate)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from finished_study import finished_study, table_of

from ablation.archive.crate import METADATA, Told
from ablation.archive.pack import SUMS, copy_out, files_of
from ablation.archive.whole import described
from ablation.files import digest

CONTEXTS = ROOT / "tests/data/crate/contexts.json"
PROFILES = ["ro-crate-1.1", "workflow-ro-crate-1.0", "process-run-crate-0.5", "workflow-run-crate-0.5"]
LICENCE = "https://spdx.org/licenses/CC-BY-4.0"
NOT_KNOWN = (  # what is recommended, and nobody has told
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    "The author SHOULD have an organizational affiliation",
    "The author SHOULD have a Contextual Entity which specifies the organizational `affiliation`",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finished_study(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def crate(study, tmp_path_factory):
    target = tmp_path_factory.mktemp("crate")
    with described(study, Told(LICENCE, "A. Person")) as (folder, _):
        copy_out(folder, target)
    return target


@pytest.fixture(scope="module")
def entities(crate):
    return {entity["@id"]: entity for entity in json.loads((crate / METADATA).read_text())["@graph"]}


def listed(value):
    return value if isinstance(value, list) else [] if value is None else [value]


def references(value):
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else [r for inner in value.values() for r in references(inner)]
    return [r for inner in value for r in references(inner)] if isinstance(value, list) else []


def test_every_file_is_in_it_with_its_size_and_checksum(crate, entities):
    files = {name: path for name, path in files_of(crate).items() if name not in (METADATA, SUMS)}
    told = {name for name, entity in entities.items() if "File" in listed(entity["@type"])}
    assert told == set(files) and not any(path.is_symlink() for path in files.values())
    for name, path in files.items():
        assert (entities[name]["sha256"], entities[name]["contentSize"]) == (digest(path), str(path.stat().st_size))
        assert "/" in entities[name]["encodingFormat"]
    assert set(references(entities["./"]["hasPart"])) == {name for name in entities if name in told or name.endswith("/")} - {
        "./"
    }


def test_what_it_refers_to_is_there_or_elsewhere_on_the_web(entities):
    found = {reference for entity in entities.values() for reference in references(entity)}
    assert {
        reference for reference in found - set(entities) if not reference.startswith(("https://", "http://schema.org/"))
    } == set()


def test_it_says_what_ran_on_what_and_when(study, entities):
    root, action = entities["./"], entities["#study"]
    assert {"https://w3id.org/ro/wfrun/workflow/0.5", "https://w3id.org/ro/wfrun/process/0.5"} <= set(
        references(root["conformsTo"])
    )
    assert references(root["mainEntity"]) == references(action["instrument"]) == ["workflow/Snakefile"]
    assert (action["startTime"], action["endTime"]) == ("2026-11-01T10:00:00.000+00:00", "2026-11-01T10:01:30.000+00:00")
    assert root["datePublished"] == action["endTime"] and references(root["license"]) == [LICENCE]
    given = [entities[name] for name in references(action["object"])]
    values = {entity["name"]: entity["value"] for entity in given if entity["@type"] == "PropertyValue"}
    assert values["weights w.safetensors"] == f"sha256:{'ab' * 32}" and values["data photos-1"] == f"sha256:{'cd' * 32}"
    assert values["axis seed"] == "0, 1" and values["axis rank"] == "4"
    assert all(references(entities[entity["exampleOfWork"]["@id"]]["workExample"]) for entity in given)
    assert entities["workflow/Snakefile"]["version"] == "0123456789abcdef"
    first, second = (entities[f"#run-{run}"] for run in table_of(study)["run"])
    assert first["actionStatus"].endswith("/CompletedActionStatus") and "error" not in first
    assert second["actionStatus"].endswith("/FailedActionStatus") and second["error"] == "diverged"
    assert all(
        references(run["result"])[0].startswith("runs/") and references(run["agent"]) == ["#author"] for run in (first, second)
    )


def test_the_terms_that_it_uses_are_those_that_the_validator_is_given(entities):
    """Its contexts are cut to these: a term that is missing there would not be looked at."""
    known = {term for context in json.loads(CONTEXTS.read_text()).values() for term in context["@context"]}
    used = {name for entity in entities.values() for name in entity if not name.startswith("@")}
    assert used | {kind for entity in entities.values() for kind in listed(entity["@type"])} <= known


@pytest.fixture(scope="module")
def validate(tmp_path_factory):
    """A function that validates: the messages of what is wrong."""
    folder = tmp_path_factory.mktemp("validator")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", "-r", ROOT / "envs/validator.txt"], check=True)

    def run(crate: Path, profile: str, severity: str) -> list[str]:
        command = [folder / "bin/python", ROOT / "tests/crate_validator.py", CONTEXTS, crate, profile, severity]
        environment = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["statistics"]["total_checks"] > 20 and found["passed"] == (done.returncode == 0)
        return [issue["message"] for issue in found["issues"]]

    return run


@pytest.mark.crate
@pytest.mark.parametrize("profile", PROFILES)
def test_it_is_valid(crate, validate, profile):
    assert validate(crate, profile, "required") == []


@pytest.mark.crate
def test_it_follows_what_is_recommended_as_far_as_it_is_known(crate, validate):
    assert {message for message in validate(crate, PROFILES[-1], "recommended") if not message.startswith(NOT_KNOWN)} == set()


@pytest.mark.crate
@pytest.mark.parametrize("wrong", ["a file that is gone", "no instrument", "no licence"])
def test_the_validator_finds_what_is_wrong(crate, validate, tmp_path, wrong):
    copy_out(crate, tmp_path)
    content = json.loads((tmp_path / METADATA).read_text())
    if wrong == "a file that is gone":
        (tmp_path / "runs.parquet").unlink()
    for entity in content["@graph"]:
        entity.pop({"no instrument": "instrument", "no licence": "license"}.get(wrong), None)
    (tmp_path / METADATA).write_text(json.dumps(content))
    assert validate(tmp_path, PROFILES[-1], "required") != []
