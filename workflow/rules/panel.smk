# The genes of a run, chosen on the training units only.
rule panel:
    input:
        slides=lambda w: [paths.slide("slide.h5ad", w.dataset, slide) for slide in study.slides(w.dataset)],
        split=paths.split("split.parquet"),
        list=lambda w: study.panel_file(w.panel),
    output:
        paths.split("panels/{panel}.txt"),
    log:
        paths("logs/panel/{dataset}/{split}/{panel}.log"),
    benchmark:
        paths("benchmarks/panel/{dataset}/{split}/{panel}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("panel")
    resources:
        **asks(
            "panel",
            mem_mb=lambda w: panel_mb(
                study.config.panels[w.panel].kind,
                [paths.slide("slide.h5ad", w.dataset, slide) for slide in study.slides(w.dataset)],
            ),
            runtime=30,
        ),
    params:
        panel=lambda w: study.config.panels[w.panel].model_dump(),
        code=script_digest("panel"),
    script:
        "../scripts/panel.py"
