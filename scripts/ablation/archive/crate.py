"""A staged study as an RO-Crate: what each file is, what ran, on what and when.

The profile is Workflow Run RO-Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5): the Snakefile is the workflow, the study one
run of it, and each training of the study an action of its own.
"""

import json
import mimetypes
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rocrate.model import ContextEntity, DataEntity, Entity
from rocrate.rocrate import ROCrate

from ablation.archive.contents import RUNS_TABLE, STUDY, name_and_scale, runs
from ablation.archive.pack import files_of
from ablation.canonical import short_hash
from ablation.files import write_json
from ablation.report.results import in_words

METADATA, WORKFLOW = "ro-crate-metadata.json", "workflow"
TRAINING = f"{WORKFLOW}/rules/train.smk"
ROOT = Path(__file__).parents[3]
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
BIOSCHEMAS = {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
FORMATS = {
    ".parquet": "application/vnd.apache.parquet", ".safetensors": "application/octet-stream", ".yaml": "application/yaml",
    ".csv": "text/csv", ".md": "text/markdown", ".tex": "application/x-tex", ".json": "application/json", ".smk": "text/plain",
    "": "text/plain",
}  # fmt: skip
SAID = {
    STUDY: "the study with all defaults filled in",
    RUNS_TABLE: "a row a run: settings, outcome, metrics, memory, time, origin",
    "report.html": "the report as a page",
    "report.pdf": "the report as a PDF",
    "tables": "the report's tables, as CSV, Markdown and LaTeX",
    "figures": "the report's figures",
}
RESULTS = {RUNS_TABLE: "File", "report.html": "File", "report.pdf": "File", "tables": "Dataset", "figures": "Dataset"}
UNSTATED = "Not stated. The weights that the runs started from and the data have licences of their own."


class Told(NamedTuple):
    """What nobody but the author knows."""

    licence: str = UNSTATED
    author: str | None = None


def add_workflow(folder: Path) -> None:
    """Copy the workflow's own files into a staged study: the Snakefile, its rules, and the pinned packages."""
    for path in (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk")), ROOT / "requirements.txt"):
        target = folder / WORKFLOW / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def write_crate(folder: Path, sums: Mapping[str, str], told: Told) -> str | None:
    """Write the metadata of a staged study into its ``folder``; returns when the study ended, as far as its manifests say.

    ``sums``: the SHA-256 of each file, by name.
    """
    made = StudyCrate(folder, sums, told)
    content = made.crate.metadata.generate()
    write_json(folder / METADATA, {**content, "@graph": [_plain(entity) for entity in content["@graph"]]})
    return made.span[1]


class StudyCrate:
    """The crate as it is put together."""

    def __init__(self, folder: Path, sums: Mapping[str, str], told: Told):
        self.folder, self.sums, self.told = folder, sums, told
        self.name, scale = name_and_scale(folder / STUDY)
        self.study = json.loads((folder / STUDY).read_text(encoding="utf-8"))["study"]
        self.runs = {run: _read(folder / "runs" / run) for run in runs(folder)}
        self.span = _span(self.runs.values())
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_contexts.append(TERMS)
        self.workflow = self._workflow()
        self.parts = self._files()
        self.agent = self._person()
        self._root(scale)
        self._study_action()
        for run, known in self.runs.items():
            self._run_action(run, known)

    def _root(self, scale: str) -> None:
        root = self.crate.root_dataset
        title = self.study.get("title") or self.name
        root["name"] = f"{title} ({self.name}, {scale})"
        root["description"] = f"An ablation study of {len(self.runs)} runs: report, tables, figures, and what was trained."
        root["datePublished"] = self.span[1] or "1970-01-01"
        address = self.told.licence if self.told.licence.startswith("https://") else "#licence"
        root["license"] = self._context(address, "CreativeWork", name=self.told.licence)
        self.parts["README.md"]["about"] = root
        root["conformsTo"] = [self._context(profile, "CreativeWork", name=name, version=profile.rpartition("/")[2])
                              for profile, name in PROFILES.items()]  # fmt: skip
        if self.agent:
            root["author"] = self.agent

    def _workflow(self) -> Entity:
        codes = [known["manifest"].get("code") or {} for known in self.runs.values()]
        commits = sorted({code["commit"] + ("-changed" if code.get("changed") else "") for code in codes if code.get("commit")})
        properties = {
            "name": "Ablation workflow",
            "version": ", ".join(commits) or "not a git checkout",
            "conformsTo": BIOSCHEMAS,
        }
        return self.crate.add_workflow(
            dest_path=f"{WORKFLOW}/Snakefile", main=True, lang="snakemake", lang_version=version("snakemake"),
            properties={**properties, **self._measured(f"{WORKFLOW}/Snakefile")},
        )  # fmt: skip

    def _files(self) -> dict[str, DataEntity]:
        """All files as entities of the crate, and the folders that results are in, by name."""
        found: dict[str, DataEntity] = {f"{WORKFLOW}/Snakefile": self.workflow}
        for name in files_of(self.folder):
            if name not in found and name != METADATA:
                properties = {"name": SAID.get(name, name), **self._measured(name)}
                if name == TRAINING:
                    properties |= {"@type": ["File", "SoftwareSourceCode"], "version": self.workflow["version"]}
                found[name] = self.crate.add_file(dest_path=name, properties=properties)
        self.workflow["hasPart"] = [part for name, part in found.items() if name.endswith(".smk")]
        for name, said in {"tables": SAID["tables"], "figures": SAID["figures"], **self._of_runs()}.items():
            within = [part for file, part in found.items() if file.startswith(f"{name}/")]
            found[name] = self.crate.add_dataset(dest_path=f"{name}/", properties={"name": said, "hasPart": []})
            found[name]["hasPart"] = within
        return found

    def _of_runs(self) -> dict[str, str]:
        told = {run: known["training"].get("outcome", "completed") for run, known in self.runs.items()}
        return {f"runs/{run}": f"run {run}: {in_words(outcome)}" for run, outcome in told.items()}

    def _measured(self, name: str) -> dict[str, str]:
        """Type, size and checksum of a file."""
        path = self.folder / name
        guessed = FORMATS.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return {"encodingFormat": guessed, "contentSize": str(path.stat().st_size), "sha256": self.sums[name]}

    def _person(self) -> Entity | None:
        return self._context("#author", "Person", name=self.told.author) if self.told.author else None

    def _study_action(self) -> None:
        """The study as one run of the workflow, with its parameters."""
        given = {"study": [self.parts[STUDY]], **self._inputs(self.runs.values())}
        for axis, value in self.study.get("sweep", {}).items():
            given[axis] = [self._value(f"axis {axis}", _listed(value))]
        self.workflow["input"] = [self._parameter(f"input-{name}", name, "Text" if name != "study" else "File", examples)
                                  for name, examples in given.items()]  # fmt: skip
        self.workflow["output"] = [self._parameter(f"output-{name}", name, kind, [self.parts[name]])
                                   for name, kind in RESULTS.items()]  # fmt: skip
        action = self._action("#study", self.workflow, [*chain(*given.values())], [self.parts[name] for name in RESULTS])
        action["name"] = f"The study {self.name}"
        action["description"] = f"{len(self.runs)} runs, collected and reported."
        action["actionStatus"] = "http://schema.org/CompletedActionStatus"
        self._timed(action, self.span)

    def _run_action(self, run: str, known: Mapping[str, Any]) -> None:
        """A training, and its evaluation."""
        training = known["training"]
        outcome = training.get("outcome", "completed")
        given = [self.parts[f"runs/{run}/run.yaml"], *chain(*self._inputs([known]).values())]
        action = self._action(f"#run-{run}", self.parts[TRAINING], given, [self.parts[f"runs/{run}"]])
        action["name"] = f"Training of {run}"
        device = known["manifest"].get("device") or {}
        action["description"] = f"On {device.get('name') or known['manifest'].get('cpu') or 'a machine that is not recorded'}."
        ended = "Completed" if outcome == "completed" else "Failed"
        action["actionStatus"] = f"http://schema.org/{ended}ActionStatus"
        if ended == "Failed":
            action["error"] = in_words(outcome)
        self._timed(action, _span([known]))

    def _action(self, name: str, instrument: Entity, given: list[Entity], made: list[Entity]) -> Entity:
        action = self.crate.add_action(instrument, identifier=name, object=given, result=made)
        self.crate.root_dataset.append_to("mentions", action)
        if self.agent:
            action["agent"] = self.agent
        return action

    @staticmethod
    def _timed(action: Entity, span: tuple[str | None, str | None]) -> None:
        for name, when in zip(("startTime", "endTime"), span, strict=True):
            if when:
                action[name] = when

    def _parameter(self, identifier: str, name: str, kind: str, examples: list[Entity]) -> Entity:
        parameter = self._context(f"#{identifier}", "FormalParameter", name=name, additionalType=kind)
        parameter["workExample"] = examples
        for example in examples:
            example["exampleOfWork"] = parameter
        parameter["conformsTo"] = {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"}
        return parameter

    def _value(self, name: str, value: str) -> Entity:
        return self._context(f"#value-{short_hash([name, value])}", "PropertyValue", name=name, value=value)

    def _context(self, identifier: str, kind: str, **properties: Any) -> Entity:
        """A contextual entity, made once."""
        found = self.crate.dereference(identifier)
        return found or self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind, **properties}))

    def _inputs(self, known: Iterable[Mapping[str, Any]]) -> dict[str, list[Entity]]:
        """The weights and the prepared data that runs read, by their hashes; only what their manifests know."""
        inputs = [one["manifest"].get("inputs") or {} for one in known]
        files = [file for one in inputs for known in one.get("weights", {}).values() for file in known.items()]
        weights = {(f"weights {name}", hashes["sha256"]) for name, hashes in files}
        data = {(f"data {part}", found) for one in inputs for part, found in one.get("data", {}).items()}
        found = {"weights": weights, "data": data}
        return {
            kind: [self._value(name, f"sha256:{known}") for name, known in sorted(values, key=str) if known]
            for kind, values in found.items() if any(known for _, known in values)
        }  # fmt: skip


def _read(folder: Path) -> dict[str, Any]:
    """What a run's folder says of it; what is not there is empty."""
    found = {name: folder / f"{name}.json" for name in ("manifest", "training")}
    return {name: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {} for name, path in found.items()}


def _span(known: Iterable[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """When the first of the runs began and the last one ended, as far as their manifests say; older ones say when alone."""
    manifests = [one["manifest"] for one in known]
    times = [manifest.get("times") or {} for manifest in manifests]
    whens = [manifest.get("written") for manifest in manifests]
    begin = min(filter(None, [time.get("begin") or when for time, when in zip(times, whens, strict=True)]), default=None)
    return begin, max(filter(None, [time.get("end") or when for time, when in zip(times, whens, strict=True)]), default=None)


def _plain(entity: dict[str, Any]) -> dict[str, Any]:
    """An entity with what is a list of one as that one, as JSON-LD writes it."""
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in entity.items()}


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
