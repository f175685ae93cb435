# Measured instead of predicted: a few steps of each cell on the device, and the largest batch that fits it. With SLURM these rules
# run where Snakemake runs and send job arrays; with another cluster each is one of its jobs; else they run on this machine.


rule probe_study:
    input:
        plan="results/{scale}/{study}/plan.csv",
    output:
        "results/{scale}/{study}/probe.csv",
    log:
        "results/{scale}/{study}/logs/probe.log",
    localrule: LOCAL or SLURM
    conda:
        "../envs/ablation.yaml"
    threads: 1
    resources:
        **probe_resources(),
    params:
        cluster=slurm_resources(),
        failures=failures,
        folder=subpath(output[0], parent=True),
    message:
        "probe {wildcards.study}"
    shell:
        program("probe_study.py")
        + " --study {params.folder}/study.json --plan {input.plan:q} --cards config/hardware"
        " --folder {params.folder}/probe --logs {params.folder}/logs/probe --cluster {params.cluster:q}"
        " --log {log:q} --output {output:q}"


rule probe_batches:
    input:
        plan="results/{scale}/{study}/plan.csv",
    output:
        "results/{scale}/{study}/largest_batch.csv",
    log:
        "results/{scale}/{study}/logs/largest_batch.log",
    localrule: LOCAL or SLURM
    conda:
        "../envs/ablation.yaml"
    threads: 1
    resources:
        **probe_resources(),
    params:
        cluster=slurm_resources(),
        failures=failures,
        folder=subpath(output[0], parent=True),
    message:
        "find the largest batches of {wildcards.study}"
    shell:
        program("probe_batches.py")
        + " --study {params.folder}/study.json --cards config/hardware --traces results/traces"
        " --folder {params.folder}/probe --logs {params.folder}/logs/probe --cluster {params.cluster:q}"
        " --log {log:q} --output {output:q}"
