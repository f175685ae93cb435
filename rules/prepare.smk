# Prepared data: each part of the graph that a system declares, once for all runs that need it.


rule prepare_part:
    input:
        # Known by content, not by time.
        ancient(or_stop(needs_of_part)),
    output:
        directory("results/{scale}/data/{part}"),
    log:
        "results/{scale}/logs/prepare/{part}.log",
    conda:
        "../envs/ablation.yaml"
    threads: 1
    resources:
        **whole_cards(lambda w: part_of(w)[1].gpus),
        mem_mb=lambda w: part_of(w)[1].mem_gib * 1024,
        runtime=240,
    params:
        system=lambda w: part_of(w)[0],
        resume=lambda w: "--resume" if part_of(w)[1].resumable else "",
        part=lambda w: canonical(
            {
                "stage": part_of(w)[1].stage,
                "name": part_of(w)[1].name,
                "settings": part_of(w)[1].settings,
            }
        ),
    message:
        "prepare {wildcards.part}"
    shell:
        LOG_TO
        + "OMP_NUM_THREADS={threads} "
        + program("prepare_part.py")
        + " --system {params.system:q} --part {params.part:q}"
        " {params.resume} --gpus {resources.gpu} --needs {input:q} --output {output:q}"
