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
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=10,
    params:
        split=lambda w: study.split_config(w.split),
        fov_um=lambda w: study.widest_fov_um(w.dataset),
        code=code_digest("splits", "leakage"),
    script:
        "../scripts/split.py"
