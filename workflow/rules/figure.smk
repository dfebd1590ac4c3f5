# A figure about the runs of a table; its kind is a module of stmorph.figures.
rule figure:
    input:
        unpack(lambda w: study.figure_inputs(w.figure)),
    output:
        report(
            paths("figures/{figure}.png"),
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda w: {"what": study.targets[w.figure][0]},
        ),
    log:
        paths("logs/figure/{figure}.log"),
    benchmark:
        paths("benchmarks/figure/{figure}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("figure")
    resources:
        **asks("figure", mem_mb=3000, runtime=30),
    params:
        figure=lambda w: study.config.figures[w.figure].model_dump(),
        runs=lambda w: study.figure_runs(w.figure),
        code=lambda w: script_digest("figure", f"figures.{study.config.figures[w.figure].kind}"),
    script:
        "../scripts/figure.py"
