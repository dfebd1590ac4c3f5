# One model: EMA weights and all that sampling needs. What a resume needs lies outside the outputs, in work/.
rule train:
    input:
        unpack(lambda w: given.inputs(paths.run("model.safetensors", study.run(w)), study.data_inputs(study.run(w)))),
    output:
        model=paths.run("model.safetensors"),
        record=paths.run("model.json"),
        losses=paths.run("losses.csv"),
        provenance=paths.run("provenance.json"),
    log:
        paths("logs/train/{dataset}/{split}/{panel}/{label}/seed{seed}.log"),
    benchmark:
        paths("benchmarks/train/{dataset}/{split}/{panel}/{label}/seed{seed}.tsv")
    # Long jobs first, or the last one runs alone at the end.
    priority: 2
    conda:
        "../envs/stmorph.yaml"
    threads: lambda w: study.run(w).training.get("cpu_threads", 1)
    resources:
        **gpus(lambda w: study.resources(w).gpu),
        mem_mb=lambda w, attempt: study.resources(w).mem_mb * attempt,
        runtime=lambda w: study.resources(w).runtime,
    params:
        run=lambda w: study.run(w).as_trained(),
        work=paths("work"),
        code=lambda w: study.code_of(study.run(w), "train"),
    script:
        "../scripts/train.py"
