# From the runs to one table and one page.


localrules:
    all,
    plan,
    plan_study,
    collect_runs,
    write_report,


rule collect_runs:
    input:
        plan="results/{scale}/{study}/plan.csv",
        metrics=lambda w: [
            f"results/{w.scale}/{w.study}/runs/{run}/metrics.json"
            for run in planned(w, SUBMITTED)
        ],
    output:
        parquet="results/{scale}/{study}/runs.parquet",
        csv="results/{scale}/{study}/runs.csv",
    log:
        "results/{scale}/{study}/logs/collect.log",
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        folder=subpath(output.csv, parent=True),
        submitted=SUBMITTED,
    message:
        "collect the runs of {wildcards.study}"
    shell:
        "python scripts/collect_runs.py --folder {params.folder:q} --plan {input.plan:q} --submitted {params.submitted}"
        " --parquet {output.parquet:q} --csv {output.csv:q} 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"


rule write_report:
    input:
        recommended=lambda w: recommended_file(w.study),
        runs="results/{scale}/{study}/runs.parquet",
        claims=lambda w: claims_file(w.study, "claims.csv"),
    output:
        "results/{scale}/{study}/report.html",
    log:
        "results/{scale}/{study}/logs/report.log",
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        study=lambda w: canonical(STUDIES[w.study].model_dump(mode="json")),
        folder=subpath(output[0], parent=True),
    message:
        "report on {wildcards.study}"
    shell:
        "python scripts/write_report.py --study {params.folder}/study.json --folder {params.folder:q}"
        " --output {output:q} 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"
