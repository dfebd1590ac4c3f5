# Who trains and who is tested; a leak stops the run here, before anything is trained.
rule split:
    input:
        slides=lambda w: [paths.slide("slide.h5ad", w.dataset, slide) for slide in study.slides(w.dataset)],
        tiles=lambda w: study.split_tiles(w.dataset),
    output:
        split=paths.split("split.parquet"),
        leakage=paths.split("leakage.json"),
    log:
        paths("logs/split/{dataset}/{split}.log"),
    benchmark:
        paths("benchmarks/split/{dataset}/{split}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("split")
    resources:
        **asks("split", mem_mb=2000, runtime=10),
    params:
        split=lambda w: study.split_config(w.split),
        fov_um=lambda w: study.widest_fov_um(w.dataset),
        code=script_digest("split"),
    script:
        "../scripts/split.py"
