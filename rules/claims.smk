# Published numbers against ours: once against the plan, and again when there are runs.


rule check_claims:
    input:
        table="results/{scale}/{study}/runs.parquet",
        on_cards="results/{scale}/{study}/cards.csv",
    output:
        "results/{scale}/{study}/claims.csv",
    log:
        "results/{scale}/{study}/logs/claims.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        folder=subpath(output[0], parent=True),
    message:
        "check the claims of {wildcards.study}"
    shell:
        program("check_claims.py")
        + " --study {params.folder}/study.json --claims config/claims --cards config/hardware"
        " --table {input.table:q} --on-cards {input.on_cards:q} --output {output:q} 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"


use rule check_claims as check_plan with:
    input:
        table="results/{scale}/{study}/plan.csv",
        on_cards="results/{scale}/{study}/cards.csv",
    output:
        "results/{scale}/{study}/plan_claims.csv",
    log:
        "results/{scale}/{study}/logs/plan_claims.log",
