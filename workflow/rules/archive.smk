# What a reviewer is given: the scores (kilobytes) and the models of a study, one file each. `make restore` reads them.
rule archive_scores:
    input:
        [paths(file) for file in bundle_files(study, "scores")],
    output:
        paths(f"bundles/{study.config.name}_scores.zip"),
    log:
        paths("logs/archive/scores.log"),
    benchmark:
        paths("benchmarks/archive/scores.tsv")
    localrule: True
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        about=lambda w: bundle_about(study, "scores"),
        code=script_digest("archive"),
        results=lambda w: study.config.results,
    script:
        "../scripts/archive.py"


rule archive_models:
    input:
        [paths(file) for file in bundle_files(study, "models")],
    output:
        paths(f"bundles/{study.config.name}_models.zip"),
    log:
        paths("logs/archive/models.log"),
    benchmark:
        paths("benchmarks/archive/models.tsv")
    localrule: True
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=120,
    params:
        about=lambda w: bundle_about(study, "models"),
        code=script_digest("archive"),
        results=lambda w: study.config.results,
    script:
        "../scripts/archive.py"


rule archive:
    input:
        rules.archive_scores.output,
        rules.archive_models.output,
    localrule: True
