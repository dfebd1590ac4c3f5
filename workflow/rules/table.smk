# A paper's table from scores alone: measured, published, difference.
rule table:
    input:
        lambda w: [paths.run("scores.parquet", run) for run in study.plan.table_runs(w.table)],
    output:
        csv=paths("tables/{table}.csv"),
        md=paths("tables/{table}.md"),
        html=report(
            paths("tables/{table}.html"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"what": study.targets[w.table][0]},
        ),
    log:
        paths("logs/table/{table}.log"),
    benchmark:
        paths("benchmarks/table/{table}.tsv")
    localrule: True
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        table=lambda w: study.study.tables[w.table].model_dump(),
        cells=lambda w: study.table_cells(w.table),
        paper=lambda w: study.paper_of(w.table),
        datasets=lambda w: study.datasets_of(w.table),
        code=script_digest("table"),
    script:
        "../scripts/table.py"
