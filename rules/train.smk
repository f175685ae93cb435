# Training and its evaluation: one job a run. What it needs of a GPU, of memory and of time comes from the study. The shell
# becomes the program (exec), so that signals reach it and nothing else. The logs of earlier attempts stay in logs/train/attempts.


rule train_run:
    input:
        # It was made from the same weights and data: a file to look at instead of many, for each of thousands of runs.
        base=ancient(or_stop(base_of_run)),
        prefix=ancient(or_stop(lambda w: prefix_of(w, run_of(w)))),
    output:
        run="results/{scale}/{study}/runs/{run}/run.yaml",
        history="results/{scale}/{study}/runs/{run}/history.csv",
        training="results/{scale}/{study}/runs/{run}/training.json",
        manifest="results/{scale}/{study}/runs/{run}/manifest.json",
        metrics="results/{scale}/{study}/runs/{run}/metrics.json",
    log:
        "results/{scale}/{study}/logs/train/{run}.log",
    conda:
        "../envs/ablation.yaml"
    threads: of_run(lambda run: run.settings.compute.threads * run.axes["gpus"])
    resources:
        **gpus_of_run(),
        mem_mb=lambda w, attempt: (
            run_of(w).settings.compute.mem_gib * 1024 * (1 + attempt) // 2
        ),
        # what failed may have had too little
        runtime=of_run(lambda run: run.settings.compute.runtime_min),
    params:
        # A change of the run or of its evaluation reruns the job; that of the evaluation trains nothing again.
        fingerprint=lambda w: fingerprint_of(run_of(w)),
        weights=of_run(weight_arguments, SETTINGS),
        data=of_run(data_of, SETTINGS),
        study="results/{scale}/{study}",
    message:
        "train and evaluate {wildcards.run}  (follow it: tail -f {log})"
    shell:
        LOG_TO
        + "export OMP_NUM_THREADS={threads}; exec "
        + program("train_run.py")
        + " --study {params.study}/study.json --run {wildcards.run} --fingerprint {params.fingerprint}"
        " --weights {params.weights:q} --data {params.data:q} --base {input.base:q} --plan {params.study}/plan.csv"
        " --traces results/traces --prefixes {params.study}/prefix --hashes results/hashes --cards config/hardware"
        " --folder {params.study}/runs/{wildcards.run} --threads {threads}"
        f" --device {DEVICE}{ALONE}"
