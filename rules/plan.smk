# What will run, and what will not and why: decided before any job is submitted.
from ablation.cores import usable_cores

# Processes that trace: of a machine of one's own, or of a login node, where Snakemake with a cluster's executor counts no
# cores of local jobs and starts them side by side.
TRACERS = min(8, usable_cores())
if workflow.is_main_process and "tracers" not in workflow.global_resources:
    workflow.register_resource("tracers", TRACERS)


checkpoint plan_study:
    input:
        or_stop(lambda w: plan_if_stale(w.study)),
    output:
        plan="results/{scale}/{study}/plan.csv",
        on_cards="results/{scale}/{study}/cards.csv",
    log:
        "results/{scale}/{study}/logs/plan.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: TRACERS
    resources:
        tracers=lambda w, threads: threads,
    params:
        key=lambda w: kept_key(Path(plan_file(w.study)), plan_key(w.study)),
        submitted=SUBMITTED,
    message:
        "plan {wildcards.study}"
    shell:
        told(
            program("plan_study.py")
            + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
            " --cards config/hardware --traces results/traces --workers {threads} --output {output.plan:q} --on-cards {output.on_cards:q}"
            " --key {params.key:q} --submitted {params.submitted} --data results/{wildcards.scale}/data --hashes results/hashes"
        )


# For the report alone: what the baseline would need with one technique after another. A plan does not wait for it.
rule predict_ladder:
    input:
        # It needs the plan's traces, and is that of the same study.
        "results/{scale}/{study}/plan.csv",
    output:
        "results/{scale}/{study}/ladder.csv",
    log:
        "results/{scale}/{study}/logs/ladder.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: TRACERS
    resources:
        tracers=lambda w, threads: threads,
    message:
        "predict the memory ladder of {wildcards.study}"
    shell:
        told(
            program("predict_ladder.py")
            + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
            " --cards config/hardware --traces results/traces --workers {threads} --output {output:q}"
        )
