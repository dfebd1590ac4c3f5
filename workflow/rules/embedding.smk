# One vector a tile and view from an encoder.
rule embedding:
    input:
        image=paths.tiling("image.npy"),
        record=paths.tiling("image.json"),
        tiles=paths.tiling("tiles.parquet"),
        weights=lambda w: study.at_hand(study.weights(w.encoder)),
    output:
        paths.tiling("{encoder}.zarr.zip"),
    log:
        paths("logs/embedding/{dataset}/{slide}/{tiles}/{encoder}.log"),
    benchmark:
        paths("benchmarks/embedding/{dataset}/{slide}/{tiles}/{encoder}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("embedding")
    resources:
        **asks("embedding", mem_mb=3000, runtime=240, gpu=lambda w: study.encoder_gpu(w.encoder)),
    params:
        encoder=lambda w: study.config.encoders[w.encoder].model_dump(),
        code=script_digest("embedding"),
    script:
        "../scripts/embedding.py"
