# A study against the configuration that others recommend, with advice for its card.


rule compare_config:
    input:
        # The plan traces in several processes what this needs as well, and is made anew for whatever this depends on.
        "results/{scale}/{study}/plan.csv",
    output:
        "results/{scale}/{study}/recommended.csv",
    log:
        "results/{scale}/{study}/logs/recommended.log",
    localrule: True
    conda:
        "../envs/ablation.yaml"
    threads: 1
    message:
        "compare {wildcards.study} with what is recommended"
    shell:
        told(
            program("compare_config.py")
            + " --study results/{wildcards.scale}/{wildcards.study}/study.json --output {output:q}"
        )
