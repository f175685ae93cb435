# Evaluation on the held-out data: the pretrained model once, then every trained one.


rule evaluate_base:
    input:
        weights=lambda w: weights_of(base_run(w)),
        data=lambda w: data_of(base_run(w)),
        prefix=ancient(lambda w: prefix_of(w, base_run(w))),
    output:
        "results/{scale}/{study}/base/{base}/metrics.json",
    log:
        "results/{scale}/{study}/logs/base/{base}.log",
    conda:
        "../envs/ablation.yaml"
    threads: lambda w: base_run(w).settings.compute.threads
    resources:
        gpu=1,
        mem_mb=lambda w: base_run(w).settings.compute.mem_gib * 1024,
        runtime=lambda w: base_run(w).settings.compute.runtime_min,
    params:
        weights=lambda w: weight_arguments(base_run(w)),
    message:
        "evaluate the pretrained model, {wildcards.base}"
    shell:
        "OMP_NUM_THREADS={threads} "
        + program("evaluate_base.py")
        + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
        " --base {wildcards.base} --weights {params.weights:q} --data {input.data:q} --threads {threads}"
        " --prefixes results/{wildcards.scale}/{wildcards.study}/prefix --hashes results/hashes"
        f" --device {DEVICE} --output {{output:q}} > {{log:q}} 2>&1"


rule evaluate_run:
    input:
        training="results/{scale}/{study}/runs/{run}/training.json",
        base=lambda w: f"results/{w.scale}/{w.study}/base/{run_of(w).base}/metrics.json",
        weights=lambda w: weights_of(run_of(w)),
        data=lambda w: data_of(run_of(w)),
    output:
        "results/{scale}/{study}/runs/{run}/metrics.json",
    log:
        "results/{scale}/{study}/logs/evaluate/{run}.log",
    conda:
        "../envs/ablation.yaml"
    threads: lambda w: run_of(w).settings.compute.threads
    resources:
        gpu=1,
        mem_mb=lambda w: run_of(w).settings.compute.mem_gib * 1024,
        runtime=lambda w: run_of(w).settings.compute.runtime_min,
    params:
        evaluation=lambda w: canonical(
            run_of(w).settings.evaluation.model_dump(mode="json")
        ),
        weights=lambda w: weight_arguments(run_of(w)),
    message:
        "evaluate {wildcards.run}"
    shell:
        "OMP_NUM_THREADS={threads} "
        + program("evaluate_run.py")
        + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
        " --run {wildcards.run} --training {input.training:q} --base {input.base:q} --weights {params.weights:q}"
        " --data {input.data:q} --threads {threads}"
        f" --device {DEVICE} --output {{output:q}} > {{log:q}} 2>&1"
