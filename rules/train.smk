# Training and its evaluation: one job a run. What it needs of a GPU, of memory and of time comes from the study. The shell
# becomes the program (exec), so that signals reach it and nothing else; the log of an earlier attempt stays.


rule train_run:
    input:
        weights=lambda w: weights_of(run_of(w)),
        data=lambda w: data_of(run_of(w)),
        base=lambda w: f"results/{w.scale}/{w.study}/base/{run_of(w).base}/metrics.json",
        prefix=ancient(lambda w: prefix_of(w, run_of(w))),
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
    threads: lambda w: run_of(w).settings.compute.threads * run_of(w).axes["gpus"]
    resources:
        **gpus_of_run(),
        mem_mb=lambda w, attempt: (
            run_of(w).settings.compute.mem_gib * 1024 * (1 + attempt) // 2
        ),
        # what failed may have had too little
        runtime=lambda w: run_of(w).settings.compute.runtime_min,
    params:
        # What a change of reruns the job; that of the evaluation trains nothing again.
        run=lambda w: canonical(run_of(w).training_view),
        evaluation=lambda w: canonical(
            run_of(w).settings.evaluation.model_dump(mode="json")
        ),
        fingerprint=lambda w: fingerprint_of(run_of(w)),
        weights=lambda w: weight_arguments(run_of(w)),
        folder=subpath(output.run, parent=True),
    message:
        "train and evaluate {wildcards.run}  (follow it: tail -f {log})"
    shell:
        "export OMP_NUM_THREADS={threads}; exec "
        + program("train_run.py")
        + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
        " --run {wildcards.run} --fingerprint {params.fingerprint} --weights {params.weights:q} --data {input.data:q}"
        " --base {input.base:q} --plan results/{wildcards.scale}/{wildcards.study}/plan.csv"
        " --prefixes results/{wildcards.scale}/{wildcards.study}/prefix --hashes results/hashes"
        " --cards config/hardware --folder {params.folder:q} --threads {threads}"
        f" --device {DEVICE} >> {{log:q}} 2>&1"
