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
    threads: lambda w: study.run(w).training.get("cpu_threads", 1)
    resources:
        **gpus(lambda w: study.resources(w).gpu),
        mem_mb=lambda w, attempt: study.resources(w).mem_mb * attempt,
        runtime=lambda w: study.resources(w).runtime,
    params:
        run=lambda w: study.run(w).as_dict(),
        code=lambda w: study.code_of(study.run(w), "sample"),
    script:
        "../scripts/sample.py"
