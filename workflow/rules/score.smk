# Draws against the truth; every number with what makes it comparable.
rule score:
    input:
        unpack(
            lambda w: study.at_hand(
                given.inputs(paths.run("scores.parquet", study.run(w)), study.score_inputs(study.run(w)))
            )
        ),
    output:
        scores=paths.run("scores.parquet"),
        genes=paths.run("genes.parquet"),
    log:
        paths("logs/score/{dataset}/{split}/{panel}/{label}/seed{seed}.log"),
    benchmark:
        paths("benchmarks/score/{dataset}/{split}/{panel}/{label}/seed{seed}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("score")
    resources:
        **asks("score", more_mb=lambda w: units_mb(study.score_inputs(study.run(w))), mem_mb=3000, runtime=60),
    params:
        run=lambda w: study.run(w).as_dict(),
        scores=study.config.scores.model_dump(),
        encoder=lambda w: study.image_encoder(study.run(w)),
        code=script_digest("score"),
    script:
        "../scripts/score.py"
