# The studies that run, their runs, and the places of their files. Pure functions of the configuration.
import json
import sys
import traceback
from functools import cache
from pathlib import Path

from snakemake.exceptions import IncompleteCheckpointException, WorkflowError

from ablation.cli import first_on_path
from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.gpus import visible_gpus
from ablation.parsed import parse_studies
from ablation.planned import verdicts_of
from ablation.resolved import fingerprint_of, save_study
from ablation.shipped import bring, config_files
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


def or_stop(function):
    """An input function whose errors end the start with one line.

    Where the output exists, Snakemake itself swallows such an error and says that nothing is to be done.
    """

    def stopping(wildcards):
        try:
            return function(wildcards)
        except (WorkflowError, IncompleteCheckpointException):
            raise  # Snakemake's own
        except UserError as error:
            sys.exit(f"error: {error}")
        except Exception as error:
            traceback.print_exc()
            sys.exit(
                f"error: {type(error).__name__}: {error}; this is a bug of the workflow, please report it with the lines above"
            )

    return stopping


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
