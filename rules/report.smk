# From the runs to one table and one page.


rule collect_runs:
    input:
        plan="results/{scale}/{study}/plan.csv",
        metrics=or_stop(results_told),
    output:
        parquet="results/{scale}/{study}/runs.parquet",
        csv="results/{scale}/{study}/runs.csv",
    log:
        "results/{scale}/{study}/logs/collect.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        folder=subpath(output.csv, parent=True),
        submitted=SUBMITTED,
    message:
        "collect the runs of {wildcards.study}"
    shell:
        program("collect_runs.py")
        + " --folder {params.folder:q} --plan {input.plan:q} --submitted {params.submitted}"
        " --parquet {output.parquet:q} --csv {output.csv:q} 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"


rule write_report:
    input:
        recommended=or_stop(lambda w: recommended_file(w.study)),
        runs="results/{scale}/{study}/runs.parquet",
        ladder="results/{scale}/{study}/ladder.csv",
        claims=or_stop(lambda w: claims_file(w.study, "claims.csv")),
    output:
        page=report(
            "results/{scale}/{study}/report.html",
            caption="captions/page.rst",
            category="{study}",
            subcategory="report",
            labels={"form": "page"},
        ),
        paper=report(
            "results/{scale}/{study}/report.pdf",
            caption="captions/paper.rst",
            category="{study}",
            subcategory="report",
            labels={"form": "PDF"},
        ),
        tables=report(
            directory("results/{scale}/{study}/tables"),
            patterns=["{table}.csv"],
            caption="captions/tables.rst",
            category="{study}",
            subcategory="tables",
            labels={"table": "{table}"},
        ),
        figures=report(
            directory("results/{scale}/{study}/figures"),
            patterns=["{figure}.svg"],
            caption="captions/figures.rst",
            category="{study}",
            subcategory="figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{scale}/{study}/logs/report.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        folder=subpath(output.page, parent=True),
    message:
        "report on {wildcards.study}"
    shell:
        program("write_report.py")
        + " --study {params.folder}/study.json --folder {params.folder:q}"
        " 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"


rule write_index:
    input:
        [f"{folder(study)}/report.html" for study in STUDIES],
    output:
        report("results/index.html", caption="captions/index.rst", category="index"),
    log:
        "results/logs/index.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    message:
        "index of all reports"
    shell:
        program("write_index.py")
        + " --results results 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"
