# A vendor's files to slide.h5ad: counts, positions in micrometres, and how many spots were lost for which reason.
rule slide:
    input:
        unpack(lambda w: study.at_hand(study.source_paths(w.dataset, w.slide))),
    output:
        paths.slide("slide.h5ad"),
    log:
        paths("logs/slide/{dataset}/{slide}.log"),
    benchmark:
        paths("benchmarks/slide/{dataset}/{slide}.tsv")
    conda:
        lambda w: study.slide_environment(w.dataset)
    threads: asks.cpus("slide")
    resources:
        **asks("slide", mem_mb=lambda w: slide_mb(study.source_paths(w.dataset, w.slide)), runtime=30),
    params:
        reader=lambda w: study.study.datasets[w.dataset].reader,
        options=lambda w: study.reader_options(w.dataset, w.slide),
        info=lambda w: study.slide_info(w.dataset, w.slide),
        code=script_digest("slide"),
    script:
        "../scripts/slide.py"
