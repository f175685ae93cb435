# The studies that run, their runs, and the places of their files. Pure functions of the configuration.
import json
import sys
from functools import cache
from pathlib import Path

from ablation.cli import first_on_path
from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.gpus import card_mib, visible_gpus
from ablation.hardware import load_card
from ablation.outlook import outlook
from ablation.packing import predicted_gib, share_mib
from ablation.parsed import parse_studies
from ablation.planned import is_current, kept_key, key_of, verdicts_of
from ablation.resolved import fingerprint_of, save_study
from ablation.seal import outdated
from ablation.shipped import bring, config_files
from ablation.standing import Place, base_holds, standing_of
from ablation.verify.choice import chosen, device_of

# `python` is this interpreter, also when it was called by its path; SLURM's sbatch, sacct and squeue outlast what passes by itself.
first_on_path(ROOT / "profiles/slurm/bin", Path(sys.executable).parent)
# On this machine, as many GPU jobs at a time as there are GPUs; without any, cores are the limit.
if workflow.is_main_process and LOCAL:
    if "gpu" not in workflow.global_resources and visible_gpus():
        workflow.register_resource("gpu", len(visible_gpus()))
try:
    PARSED = STARTED or parse_studies(config, Path("config"))
except UserError as error:
    sys.exit(f"error: {error}")
STUDIES, RECOMMENDED, RUNS, CLAIMS, ATTEMPT_OOM, REFERENCE, WANTED = PARSED
AGAIN = "verified"  # folder of what is trained again, in the study's own
DEVICE = device_of(REFERENCE) if REFERENCE else "auto"
# A job that was sent has from its scheduler GPUs for itself, whatever the study packs on those of one machine.
ALONE = "" if workflow.is_main_process else " --alone"


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
    """The run of a job. A plan or a job of an earlier version of the study may name one that there is no more."""
    study = study_of(wildcards)
    try:
        return RUNS[study][wildcards.run]
    except KeyError:
        sys.exit(
            f"error: the study {study} has no run {wildcards.run} (any more); `snakemake plan` lists its runs"
        )


# What is made anew since its content is of another study, other weights or other data, whatever Snakemake remembers.
STALE = set()


def remake(path, stale):
    """Have Snakemake make ``path``, where it is asked for, if it is ``stale``."""
    if not workflow.is_main_process:
        return
    if stale and path not in workflow.dag.forcefiles:
        STALE.add(path)
        workflow.dag.forcefiles.add(path)
    elif not stale and path in STALE:
        STALE.remove(path)
        workflow.dag.forcefiles.remove(path)


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
    return [
        path.read_text(encoding="utf-8")
        for path in config_files(Path("config/hardware")).values()
    ]


def plan_file(study):
    return f"{folder(study)}/plan.csv"


@cache
def plan_key(study):
    """What the plan is made from, and all that is made from it."""
    claims = {
        name: claim.model_dump(mode="json") for name, claim in CLAIMS[study].items()
    }
    against = RECOMMENDED[study] and RECOMMENDED[study].model_dump(mode="json")
    said = [STUDIES[study].model_dump(mode="json"), card_files(), claims, against]
    return key_of(said, outside_files(study))


def plan_if_stale(study):
    """No input: a look at whether the plan is that of the study as it is now."""
    plan = Path(plan_file(study))
    remake(str(plan), not is_current(plan, plan_key(study)))
    return []


@cache
def say_outlook(study):
    """Tell a person, once, what the runs of a study come to; before there is a plan, as if all of them fit."""
    if not workflow.is_main_process:
        return
    plan = Path(plan_file(study))
    runs, current = RUNS[study], is_current(plan, plan_key(study))
    verdicts = verdicts_of(plan) if current else dict.fromkeys(runs, SUBMITTED[0])
    before = "" if current else "before the plan, which may leave some out: "
    ahead = outlook(
        study, runs, verdicts, SUBMITTED, lambda run: stands(folder(study), run.id)
    )
    outside = {path for run in runs.values() for path in run.settings.outside()}
    missing = ", ".join(sorted(outside - set(outside_files(study))))
    absent = f"  missing: {missing}\n" if missing else ""
    sys.stderr.write(f"{before}{ahead}\n{absent}")


def plans_told(wildcards):
    """The plans of all studies; and a word on each study."""
    for study in STUDIES:
        say_outlook(study)
    return [plan_file(study) for study in STUDIES]


def results_told(wildcards):
    """The results of all runs that the plan sends; and a word on the study."""
    if wildcards.study in STUDIES:
        say_outlook(wildcards.study)
    runs = planned(wildcards, SUBMITTED)
    return [
        f"results/{wildcards.scale}/{wildcards.study}/runs/{run}/metrics.json"
        for run in runs
    ]


def place_of(scale):
    """Where what runs read is."""
    return Place(Path("results", scale, "data"), Path("results/hashes"))


@cache
def stands(of_study, run):
    """Where a run stands at the start; ``of_study``: the folder of the study's results."""
    _, scale, study = of_study.split("/", 2)
    settled = RUNS[study.partition("/")[0]][run]
    return standing_of(settled, Path(of_study, "runs", run), place_of(scale))


def base_of_run(wildcards):
    """The evaluation that a run starts from; and a look at whether the run's own result is that of the run as it is now."""
    run, of_study = run_of(wildcards), f"results/{wildcards.scale}/{wildcards.study}"
    found = stands(of_study, run.id)
    remake(f"{of_study}/runs/{run.id}/metrics.json", not found.done)
    return f"{of_study}/base/{run.base}/metrics.json"


def weights_of_base(wildcards):
    """The weights that the pretrained model is evaluated with; and a look at whether it was, and on this data."""
    run = base_run(wildcards)
    path = Path(
        "results", wildcards.scale, wildcards.study, "base", run.base, "metrics.json"
    )
    remake(str(path), not base_holds(run, path, place_of(wildcards.scale)))
    return weights_of(run)


def needs_of_part(wildcards):
    """What a part of the data is made from; and a look at whether that has another content since."""
    path = Path("results", wildcards.scale, "data", wildcards.part)
    remake(str(path), outdated(path))
    return [str(path.with_name(need.id)) for need in part_of(wildcards)[1].needs]


def claims_file(study, name):
    """The study's verdicts on published claims, where it names any."""
    return [f"{folder(study)}/{name}"] if CLAIMS[study] else []


def recommended_file(study):
    """The comparison with what the study names, where it names anything."""
    return f"{folder(study)}/recommended.csv" if RECOMMENDED[study] else []


def planned(wildcards, verdicts):
    """Ids of the runs with one of these verdicts in the plan."""
    plan = checkpoints.plan_study.get(scale=wildcards.scale, study=wildcards.study)
    found = verdicts_of(Path(plan.output[0]))
    return [run for run, verdict in found.items() if verdict in verdicts]


def slurm_resources():
    """The resources of probes sent to SLURM, as JSON; nothing without it.

    They are what the profile sets for all jobs and for training, as it stands there, but for the time: a probe is short.
    """
    settings = workflow.resource_settings
    if not SLURM:
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


def probe_resources():
    """What a job of some other cluster needs that probes all cells of a study, one after the other; nothing where none is sent."""
    if LOCAL or SLURM:
        return {}

    def most(name):
        return max(getattr(run.settings.compute, name) for run in ALL_RUNS)

    return {
        "gpu": 1,
        "mem_mb": most("mem_gib") * 1024,
        "runtime": most("runtime_min"),
    }


def memory_of_cards():
    """What each GPU of this machine has, in MiB, where runs may share them; None where none may, or jobs run elsewhere."""
    sharing = [run.settings for run in SETTINGS if run.settings.compute.pack > 1]
    if not sharing or not LOCAL or "gpu" not in workflow.global_resources:
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

    def nodes(run):
        return run.settings.compute.nodes

    if not LOCAL and not SLURM and any(nodes(run) > 1 for run in ALL_RUNS):
        sys.exit(
            f"error: compute.nodes: several nodes need SLURM, not --executor {EXECUTOR}; set it to 1"
        )
    if not SLURM:
        return {"gpu": of_run(gpus)}

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
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


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
