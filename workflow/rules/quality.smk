# Can a slide be trusted? A page a slide and one table of all. Only people read them: nothing here chooses anything.
rule quality_page:
    input:
        slide=paths.slide("slide.h5ad"),
        image=lambda w: study.at_hand(study.source_paths(w.dataset, w.slide)["image"]),
        tiles=lambda w: study.quality_tilings("tiles.parquet", w.dataset, w.slide),
        records=lambda w: study.quality_tilings("image.json", w.dataset, w.slide),
    output:
        page=report(
            paths("quality/{dataset}/{slide}.png"),
            caption="../report/quality.rst",
            category="Quality control",
            labels={"what": "{dataset} / {slide}"},
        ),
        record=paths("quality/{dataset}/{slide}.json"),
    log:
        paths("logs/quality/{dataset}/{slide}.log"),
    benchmark:
        paths("benchmarks/quality/{dataset}/{slide}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: asks.cpus("quality_page")
    resources:
        **asks("quality_page", mem_mb=lambda w: quality_mb(paths.slide("slide.h5ad", w.dataset, w.slide)), runtime=30),
    params:
        tilings=lambda w: study.tilings_of(w.dataset),
        seed=study.config.seeds[0],
        code=script_digest("quality"),
    script:
        "../scripts/quality.py"


rule quality_table:
    input:
        study.quality_files("json"),
    output:
        csv=paths("quality/quality.csv"),
        md=paths("quality/quality.md"),
        html=report(
            paths("quality/quality.html"),
            caption="../report/quality_table.rst",
            category="Quality control",
            labels={"what": "All slides"},
        ),
    log:
        paths("logs/quality/table.log"),
    benchmark:
        paths("benchmarks/quality/table.tsv")
    localrule: True
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        code=script_digest("quality_table"),
    script:
        "../scripts/quality_table.py"
