# Runs of a finished study, or of one that somebody else has finished, trained again and held against the first time. What is
# trained again lies in verified/ of the study's folder, which is a study's folder itself: the rules that train make it.


# It declares no output, so that it compares each time, and Snakemake deletes nothing where runs differ.
rule verify:
    input:
        lambda w: [
            f"{folder(study)}/{AGAIN}/runs/{run}/metrics.json"
            for study in STUDIES
            for run in verified_runs(study)
        ],
    log:
        "results/logs/verify.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        reference=[str(reference_of(study)) for study in STUDIES],
        again=[f"{folder(study)}/{AGAIN}" for study in STUDIES],
        runs=",".join(map(str, WANTED)) if isinstance(WANTED, list) else str(WANTED),
    message:
        "hold what was trained again against the first time"
    shell:
        program("verify_run.py")
        + " --reference {params.reference:q} --again {params.again:q} --runs {params.runs:q}"
        " 2> {log:q} || {{ status=$?; cat {log:q} >&2; exit $status; }}"
