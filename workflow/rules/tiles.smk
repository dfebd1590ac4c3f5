# The slide's image, stain-normalised once at the working resolution, and the list of tiles that are views into it.
rule tiles:
    input:
        slide=paths.slide("slide.h5ad"),
        image=lambda w: study.at_hand(study.source_paths(w.dataset, w.slide)["image"]),
        reference=lambda w: study.at_hand(study.stain_reference(w.tiles)),
    output:
        image=paths.tiling("image.npy"),
        record=paths.tiling("image.json"),
        tiles=paths.tiling("tiles.parquet"),
    log:
        paths("logs/tiles/{dataset}/{slide}/{tiles}.log"),
    benchmark:
        paths("benchmarks/tiles/{dataset}/{slide}/{tiles}.tsv")
    conda:
        lambda w: study.tiles_environment(w.tiles)
    threads: asks.cpus("tiles")
    resources:
        **asks("tiles", mem_mb=4000, runtime=60),
    params:
        options=lambda w: study.config.tiles[w.tiles],
        code=script_digest("tiles"),
    script:
        "../scripts/tiles.py"


# Further pictures of the slide on the same pixels, only of tilings that ask for channels.
rule channels:
    input:
        unpack(lambda w: study.at_hand(study.channel_paths(w.dataset, w.slide, w.tiles))),
        slide=paths.slide("slide.h5ad"),
        image=paths.tiling("image.npy"),
        record=paths.tiling("image.json"),
    output:
        channels=paths.tiling("channels.npy"),
        record=paths.tiling("channels.json"),
    log:
        paths("logs/channels/{dataset}/{slide}/{tiles}.log"),
    benchmark:
        paths("benchmarks/channels/{dataset}/{slide}/{tiles}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("channels")
    resources:
        **asks("channels", mem_mb=12000, runtime=60),
    params:
        channels=lambda w: study.channels(w.tiles),
        code=script_digest("channels"),
    script:
        "../scripts/channels.py"
