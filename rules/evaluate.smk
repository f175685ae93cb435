# Evaluation of the pretrained model on the held-out data, once for all runs that start from it. What they train, they evaluate.


rule evaluate_base:
    input:
        # Known by content, not by time.
        weights=ancient(or_stop(weights_of_base)),
        data=ancient(or_stop(lambda w: data_of(base_run(w)))),
        prefix=ancient(or_stop(lambda w: prefix_of(w, base_run(w)))),
    output:
        "results/{scale}/{study}/base/{base}/metrics.json",
    log:
        "results/{scale}/{study}/logs/base/{base}.log",
    conda:
        "../envs/ablation.yaml"
    threads: lambda w: base_run(w).settings.compute.threads
    resources:
        **whole_cards(1),
        mem_mb=lambda w: base_run(w).settings.compute.mem_gib * 1024,
        runtime=lambda w: base_run(w).settings.compute.runtime_min,
    params:
        weights=lambda w: weight_arguments(base_run(w)),
    message:
        "evaluate the pretrained model, {wildcards.base}"
    shell:
        LOG_TO
        + "OMP_NUM_THREADS={threads} "
        + program("evaluate_base.py")
        + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
        " --base {wildcards.base} --weights {params.weights:q} --data {input.data:q} --threads {threads}"
        " --prefixes results/{wildcards.scale}/{wildcards.study}/prefix --hashes results/hashes"
        f" --device {DEVICE} --output {{output:q}}"
