# The studies that run, their runs, and the places of their files. Pure functions of the configuration.
import csv
import json
import os
import sys
from functools import cache
from pathlib import Path

from ablation.cli import first_on_path
from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.gpus import card_mib, visible_gpus
from ablation.hardware import load_card
from ablation.packing import SENT, predicted_gib, share_mib
from ablation.parsed import parse_studies
from ablation.resolved import fingerprint_of, save_study
from ablation.shipped import bring, config_files
from ablation.verify.choice import chosen, device_of

# `python` is this interpreter, also when it was called by its path; SLURM's sbatch and sacct outlast an absence of its daemons.
first_on_path(ROOT / "profiles/slurm/bin", Path(sys.executable).parent)
# Jobs that are sent find it: sbatch hands this environment on.
if workflow.is_main_process and workflow.resource_settings.nodes is not None:
    os.environ[SENT] = "1"
# On this machine, as many GPU jobs at a time as there are GPUs; without any, cores are the limit.
if workflow.is_main_process and workflow.resource_settings.nodes is None:
    if "gpu" not in workflow.global_resources and visible_gpus():
        workflow.register_resource("gpu", len(visible_gpus()))
try:
    PARSED = parse_studies(config, Path("config"))
except UserError as error:
    sys.exit(f"error: {error}")
STUDIES, RECOMMENDED, RUNS, CLAIMS, ATTEMPT_OOM, REFERENCE, WANTED = PARSED
AGAIN = "verified"  # folder of what is trained again, in the study's own
DEVICE = device_of(REFERENCE) if REFERENCE else "auto"


wildcard_constraints:
    scale="demo|full",
    study=rf"[A-Za-z0-9][A-Za-z0-9_.-]*([/]{AGAIN})?",
    run=r"[A-Za-z0-9_.-]+",
    part=r"[A-Za-z0-9_.-]+",
    base=r"[A-Za-z0-9_.-]+",
    prefix=r"[A-Za-z0-9_.-]+",


# Verdicts of the plan that are submitted.
SUBMITTED = ["fits", "tight", *(["oom"] if ATTEMPT_OOM else [])]
# Resources that say where a job may run, as the SLURM executor names them; what a job needs of a machine is in the study.
PLACE = "slurm_partition slurm_account runtime constraint qos gres gpu_model slurm_extra".split()

ALL_RUNS = [run for runs in RUNS.values() for run in runs.values()]
SETTINGS = {
    id(run.settings): run for run in ALL_RUNS
}.values()  # one run for each distinct settings
PARTS = {
    (run.settings.scale, part.id): (run.settings.system, part)
    for run in SETTINGS
    for leaf in run.settings.parts()
    for part in leaf.closure()
}
BASES = {(run.study, run.base): run for run in ALL_RUNS}
# As the profile and the command line call the rule, where a module has renamed it.
TRAIN_RUN = workflow.modifier.modify_rulename("train_run")
for path in bring(path for run in SETTINGS for path in run.settings.outside()):
    sys.stderr.write(f"{path}: copied from the workflow\n")


def folder(study):
    """Where the results of a study are."""
    return f"results/{STUDIES[study].scale}/{study}"


def study_of(wildcards):
    """The study's name, also of what is trained again."""
    return wildcards.study.partition("/")[0]


def run_of(wildcards):
    return RUNS[study_of(wildcards)][wildcards.run]


def of_run(value, runs=None):
    """What a job needs of its run. A constant where it is the same for all: Snakemake asks a function many times a job.

    ``runs``: where fewer than all stand for all, as those of :data:`SETTINGS` do for what depends on settings alone.
    """
    first, *others = [value(run) for run in runs or ALL_RUNS]
    same = all(other == first for other in others)
    return first if same else lambda wildcards: value(run_of(wildcards))


@cache
def prefix_runs(study):
    """A run of each prefix."""
    return {run.prefix: run for run in RUNS[study].values()}


def prefix_run(wildcards):
    return prefix_runs(wildcards.study)[wildcards.prefix]


def prefix_of(wildcards, run):
    """The cache that a run reads; none for what is trained again, to see that it changes nothing."""
    study = wildcards.study
    known = run.prefix is not None and study in STUDIES
    return [f"{folder(study)}/prefix/{run.prefix}"] if known else []


def base_run(wildcards):
    """A run that starts from this evaluation of the pretrained model."""
    return BASES[study_of(wildcards), wildcards.base]


def reference_of(study):
    """The folder of the results that are verified."""
    return REFERENCE or Path(folder(study))


def verified_runs(study):
    """Ids of the runs that are trained again."""
    try:
        return chosen(reference_of(study), list(RUNS[study]), WANTED)
    except UserError as error:
        sys.exit(f"error: {error}")


def part_of(wildcards):
    return PARTS[wildcards.scale, wildcards.part]


def data_of(run):
    """The prepared data that a run reads."""
    return [
        f"results/{run.settings.scale}/data/{part.id}" for part in run.settings.parts()
    ]


def weights_of(run):
    """The pretrained weights that a run reads."""
    return list(run.settings.weight_files().values())


def weight_arguments(run):
    """The same as the scripts take them: name=path."""
    return [f"{name}={path}" for name, path in run.settings.weight_files().items()]


def outside_files(study):
    """Data and weights that the workflow does not make and that are there: the plan is made anew when this changes."""
    paths = {path for run in RUNS[study].values() for path in run.settings.outside()}
    return sorted(path for path in paths if Path(path).exists())


def card_files():
    """What all cards are said to be; a name that there is not is the plan's to tell."""
    return [path.read_text() for path in config_files(Path("config/hardware")).values()]


def claims_text(study):
    """The study's claims as they are checked."""
    return canonical(
        {name: claim.model_dump(mode="json") for name, claim in CLAIMS[study].items()}
    )


def claims_file(study, name):
    """The study's verdicts on published claims, where it names any."""
    return [f"{folder(study)}/{name}"] if CLAIMS[study] else []


def recommended_text(study):
    """What the study is compared with."""
    return RECOMMENDED[study] and canonical(RECOMMENDED[study].model_dump(mode="json"))


def recommended_file(study):
    """The comparison with what the study names, where it names anything."""
    return f"{folder(study)}/recommended.csv" if RECOMMENDED[study] else []


def planned(wildcards, verdicts):
    """Ids of the runs with one of these verdicts in the plan."""
    plan = checkpoints.plan_study.get(scale=wildcards.scale, study=wildcards.study)
    with open(plan.output[0], newline="") as file:
        return [
            row["run"] for row in csv.DictReader(file) if row["verdict"] in verdicts
        ]


def slurm_resources():
    """The resources of probes sent to SLURM, as JSON; nothing where Snakemake sends no jobs.

    They are what the profile sets for all jobs and for training, as it stands there, but for the time: a probe is short.
    """
    settings = workflow.resource_settings
    if settings.nodes is None:
        return ""
    everywhere = settings.default_resources or {}
    training = settings.overwrite_resources.get(TRAIN_RUN, {})
    chosen = {name: everywhere[name] for name in PLACE if name in everywhere}
    for name in [*PLACE, "mem_mb"]:
        if name in training and name != "runtime":
            chosen[name] = training[name]
    values = {
        name: type(resource)(name, resource.raw).value
        for name, resource in chosen.items()
    }
    return canonical({**values, "jobs": settings.nodes})


def memory_of_cards():
    """What each GPU of this machine has, in MiB, where runs may share them; None where none may, or jobs are sent."""
    sharing = [run.settings for run in SETTINGS if run.settings.compute.pack > 1]
    local = workflow.resource_settings.nodes is None
    if not sharing or not local or "gpu" not in workflow.global_resources:
        return None
    try:
        cards = [load_card(one.hardware, Path("config/hardware")) for one in sharing]
    except UserError as error:
        sys.exit(f"error: {error}")
    return card_mib(min(card.usable_gib for card in cards))


CARD_MIB = memory_of_cards()
# Then GPUs are given out by the MiB, too: a run that shares one takes its part, what has GPUs for itself takes all of theirs.
if CARD_MIB is not None:
    CARDS = workflow.global_resources["gpu"].value
    workflow.register_resource("gpu_mib", CARD_MIB * CARDS)


def whole_cards(gpus):
    """The resources of a job that has its GPUs for itself; ``gpus``: how many, a number or a function of its wildcards."""
    if CARD_MIB is None:
        return {"gpu": gpus}
    mib = (lambda w: CARD_MIB * gpus(w)) if callable(gpus) else CARD_MIB * gpus
    return {"gpu": gpus, "gpu_mib": mib}


def gpus_of_run():
    """The resources of a training that say what GPUs it takes, or what part of one."""
    if CARD_MIB is None:
        return on_nodes()

    def part(wildcards):
        # The plan is there when a run starts, unless that is asked for by its name: no input.
        plan = Path("results", wildcards.scale, wildcards.study, "plan.csv")
        known = predicted_gib(plan, wildcards.run)
        return share_mib(run_of(wildcards), known, CARD_MIB)

    def gpus(wildcards):
        return run_of(wildcards).axes["gpus"]

    return {
        "gpu": lambda w: gpus(w) if part(w) == CARD_MIB else 0,
        "gpu_mib": lambda w: gpus(w) * part(w),
    }


def on_nodes():
    """The resources of a training that say how many machines and GPUs it takes, as the SLURM executor names them.

    On several nodes: the GPUs of each (``gres``), since a job's ``gpu`` may be spread unevenly.
    """
    chosen = workflow.resource_settings.overwrite_resources.get(TRAIN_RUN, {})
    if "gpu_model" in chosen and any(
        run.settings.compute.nodes > 1 for run in ALL_RUNS
    ):
        sys.exit(
            "error: set-resources: gpu_model does not hold for runs on several nodes (compute.nodes); use constraint"
        )

    def gpus(run):
        return run.axes["gpus"]

    if workflow.resource_settings.nodes is None:
        return {"gpu": of_run(gpus)}

    def nodes(run):
        return run.settings.compute.nodes

    resources = {
        "nodes": of_run(nodes),
        "gpu": of_run(lambda run: gpus(run) if nodes(run) == 1 else None),
        "gres": of_run(
            lambda run: f"gpu:{gpus(run) // nodes(run)}" if nodes(run) > 1 else None
        ),
        "cpus_per_task": of_run(
            lambda run: (
                run.settings.compute.threads * gpus(run) // nodes(run)
                if nodes(run) > 1
                else None
            )
        ),
    }
    return {name: value for name, value in resources.items() if value is not None}


def failures(wildcards):
    """How often each probe has failed so far: when that grew, there is something to try again."""
    path = Path(f"results/{wildcards.scale}/{wildcards.study}/probe/failures.json")
    return json.loads(path.read_text()) if path.is_file() else {}


def save_studies():
    verify = workflow.modifier.modify_rulename("verify")
    again = AGAIN if verify in workflow.dag_settings.targets else ""
    for name, study in STUDIES.items():
        save_study(Path(folder(name), again, "study.json"), name, study)


# Jobs read the resolved study from a file; what they depend on is in their params all the same.
onstart:
    save_studies()


# Of a module, Snakemake runs no handlers; what the workflow that uses it has set before is run as well.
if not workflow.modifier.is_main_snakefile():
    of_user = workflow._onstart
    workflow._onstart = lambda log: (save_studies(), of_user(log))
