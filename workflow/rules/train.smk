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
    threads: asks.cpus("train")
    resources:
        **asks(
            "train",
            paths("logs/train/{dataset}/{split}/{panel}/{label}/seed{seed}.log"),
            more_mb=lambda w: units_mb(study.data_inputs(study.run(w))),
        ),
    params:
        run=lambda w: study.run(w).as_trained(),
        work=paths("work"),
        code=lambda w: study.code_of(study.run(w), "train"),
    script:
        "../scripts/train.py"
