# A vendor's files to slide.h5ad: counts, positions in micrometres, and how many spots were lost for which reason.
rule slide:
    input:
        unpack(lambda w: study.source_paths(w.dataset, w.slide)),
    output:
        paths.slide("slide.h5ad"),
    log:
        paths("logs/slide/{dataset}/{slide}.log"),
    benchmark:
        paths("benchmarks/slide/{dataset}/{slide}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=30,
    params:
        reader=lambda w: study.study.datasets[w.dataset].reader,
        options=lambda w: study.reader_options(w.dataset, w.slide),
        info=lambda w: study.slide_info(w.dataset, w.slide),
        code=code_digest("read"),
    script:
        "../scripts/slide.py"
