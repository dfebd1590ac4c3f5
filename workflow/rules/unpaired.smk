# Tiles without expression: one store a slide, and the list of its tiles. An archive is read where its parts lie.
rule unpaired_tiles:
    input:
        unpack(lambda w: study.at_hand(study.source_paths(w.dataset, w.slide))),
    output:
        tiles=paths.unpaired("tiles.npy"),
        list=paths.unpaired("tiles.parquet"),
    log:
        paths("logs/unpaired/{dataset}/{slide}.log"),
    benchmark:
        paths("benchmarks/unpaired/{dataset}/{slide}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("unpaired_tiles")
    resources:
        **asks("unpaired_tiles", mem_mb=2000, runtime=480),
    params:
        options=lambda w: study.reader_options(w.dataset, w.slide),
        code=script_digest("unpaired"),
    script:
        "../scripts/unpaired.py"
