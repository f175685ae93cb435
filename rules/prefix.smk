# What a frozen part of a network makes of the inputs: once for all runs of a study that share it. Every run with such a part has
# this input, used or not: what a run waits for must not change with the other runs. It is made where it is not there, and then
# stays, whatever changes: a reader finds by content what still holds. (Not temp: an ancient input that must be made again runs
# all its readers again. Nor made anew for a change: Snakemake then overlooks what else its readers have to run for.)


rule cache_prefix:
    input:
        weights=ancient(or_stop(lambda w: weights_of(prefix_run(w)))),
        data=ancient(or_stop(lambda w: data_of(prefix_run(w)))),
    output:
        directory("results/{scale}/{study}/prefix/{prefix}"),
    log:
        "results/{scale}/{study}/logs/prefix/{prefix}.log",
    conda:
        "../envs/ablation.yaml"
    threads: lambda w: prefix_run(w).settings.compute.threads
    resources:
        **whole_cards(1),
        mem_mb=lambda w: prefix_run(w).settings.compute.mem_gib * 1024,
        runtime=lambda w: prefix_run(w).settings.compute.runtime_min,
    params:
        weights=lambda w: weight_arguments(prefix_run(w)),
    message:
        "compute once what is frozen, {wildcards.prefix}"
    shell:
        LOG_TO
        + "OMP_NUM_THREADS={threads} "
        + program("cache_prefix.py")
        + " --study results/{wildcards.scale}/{wildcards.study}/study.json"
        " --prefix {wildcards.prefix} --weights {params.weights:q} --data {input.data:q} --hashes results/hashes"
        " --runs results/{wildcards.scale}/{wildcards.study}/runs"
        f" --threads {{threads}} --device {DEVICE} --output {{output:q}}"
