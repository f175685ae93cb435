# A finished study to give away. `make archive` packs the same into one file, and starts no run for it.


rule write_crate:
    input:
        "results/{scale}/{study}/report.html",
    output:
        directory("results/{scale}/{study}/crate"),
    log:
        "results/{scale}/{study}/logs/crate.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    params:
        folder=subpath(output[0], parent=True),
    message:
        "{wildcards.study} as an RO-Crate"
    shell:
        program("write_crate.py")
        + " --folder {params.folder:q} --output {output:q} 2> {log:q} || {{ cat {log:q} >&2; exit 2; }}"
