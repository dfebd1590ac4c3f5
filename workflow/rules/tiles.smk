# The slide's image, stain-normalised once at the working resolution, and the list of tiles that are views into it.
rule tiles:
    input:
        slide=paths.slide("slide.h5ad"),
        image=lambda w: study.source_paths(w.dataset, w.slide)["image"],
        reference=lambda w: study.stain_reference(w.tiles),
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
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=60,
    params:
        options=lambda w: study.config.tiles[w.tiles],
        code=code_digest("image"),
    script:
        "../scripts/tiles.py"
