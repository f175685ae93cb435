# Targets and includes, nothing else. What a study is: docs/study.md; how the parts fit: docs/design.md.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/prepare.smk"
include: "rules/plan.smk"
include: "rules/recommended.smk"
include: "rules/probe.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/claims.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        [f"{folder(study)}/report.html" for study in STUDIES],


rule plan:
    input:
        [recommended_file(study) for study in STUDIES],
        [f"{folder(study)}/plan.csv" for study in STUDIES],
        [claims_file(study, "plan_claims.csv") for study in STUDIES],


rule probe:
    input:
        [f"{folder(study)}/probe.csv" for study in STUDIES],


rule largest_batch:
    input:
        [f"{folder(study)}/largest_batch.csv" for study in STUDIES],
