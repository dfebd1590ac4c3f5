# One vector a tile and view from an encoder.
rule embedding:
    input:
        image=paths.tiling("image.npy"),
        record=paths.tiling("image.json"),
        tiles=paths.tiling("tiles.parquet"),
    output:
        paths.tiling("{encoder}.zarr.zip"),
    log:
        paths("logs/embedding/{dataset}/{slide}/{tiles}/{encoder}.log"),
    benchmark:
        paths("benchmarks/embedding/{dataset}/{slide}/{tiles}/{encoder}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        **gpus(lambda w: study.encoder_gpu(w.encoder)),
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=240,
    params:
        encoder=lambda w: study.config.encoders[w.encoder].model_dump(),
        code=code_digest("encoders", "image.tiles"),
    script:
        "../scripts/embedding.py"
