# Draws for the test units, each from its own seed.
rule sample:
    input:
        unpack(lambda w: study.sample_inputs(study.run(w))),
    output:
        paths.run("samples.zarr.zip"),
    log:
        paths("logs/sample/{dataset}/{split}/{panel}/{label}/seed{seed}.log"),
    benchmark:
        paths("benchmarks/sample/{dataset}/{split}/{panel}/{label}/seed{seed}.tsv")
    priority: 1
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("sample")
    resources:
        **asks("sample", more_mb=lambda w: units_mb(study.sample_inputs(study.run(w)))),
    params:
        run=lambda w: study.run(w).as_dict(),
        code=lambda w: study.code_of(study.run(w), "sample"),
    script:
        "../scripts/sample.py"
