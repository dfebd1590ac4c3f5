# Files that are published at a URL and not on disk; only where no data_root is set.
# Transfers run where the workflow was started: compute nodes often have no internet.
if study.fetched:

    rule fetch:
        output:
            f"{study.config.downloads}/{{file}}",
        log:
            f"{study.config.downloads}/logs/{{file}}.log",
        benchmark:
            f"{study.config.downloads}/logs/{{file}}.benchmark.tsv"
        wildcard_constraints:
            file="(?!logs/).+",
        localrule: True
        conda:
            "../envs/stmorph.yaml"
        threads: 1
        resources:
            mem_mb=500,
            runtime=240,
        params:
            source=lambda w: vars(study.fetched[f"{study.config.downloads}/{w.file}"]),
        script:
            "../scripts/fetch.py"
