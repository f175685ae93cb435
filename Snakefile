# Targets and includes, nothing else. What a study is: docs/study.md; how the parts fit: docs/design.md.
import gc
import signal

from snakemake.utils import min_version

min_version("9.27")
# SLURM's warning ahead of the time limit goes to all processes of a job; it is meant for the program that trains.
signal.signal(signal.SIGUSR1, lambda number, frame: None)
# What Snakemake knows of 10,000 jobs, some two million objects, stays until its end: Python looks for garbage after each half
# million that are new, not after each 700.
gc.set_threshold(500_000)


include: "rules/place.smk"
include: "rules/executor.smk"
include: "rules/started.smk"


if STARTED is None:

    configfile: own_or_shipped(Path("config/config.yaml"))


# Only looked for with --software-deployment-method apptainer; made by `apptainer build ablation.sif apptainer.def`.
container: "ablation.sif"


include: "rules/common.smk"
include: "rules/standing.smk"
include: "rules/resources.smk"
include: "rules/prepare.smk"
include: "rules/prefix.smk"
include: "rules/plan.smk"
include: "rules/recommended.smk"
include: "rules/probe.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/claims.smk"
include: "rules/report.smk"
include: "rules/reproduce.smk"
include: "rules/archive.smk"


rule all:
    default_target: True
    input:
        [f"{folder(study)}/report.html" for study in STUDIES],
        "results/index.html",
    localrule: True


rule plan:
    input:
        [recommended_file(study) for study in STUDIES],
        or_stop(plans_told),
        [claims_file(study, "plan_claims.csv") for study in STUDIES],
    localrule: True


# `make claims` prints them all in one table.
rule claims:
    input:
        [claims_file(study, "plan_claims.csv") for study in STUDIES],
    localrule: True


rule probe:
    input:
        [f"{folder(study)}/probe.csv" for study in STUDIES],
    localrule: True


rule largest_batch:
    input:
        [f"{folder(study)}/largest_batch.csv" for study in STUDIES],
    localrule: True


rule crate:
    input:
        [f"{folder(study)}/crate" for study in STUDIES],
    localrule: True
