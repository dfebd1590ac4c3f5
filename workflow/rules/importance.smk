# Which genes move a generator's pictures, and which known gene sets they stand for. Offline: the sets come from a GMT file.
rule importance:
    input:
        unpack(lambda w: study.importance_inputs(w.importance)),
    output:
        paths("importance/{importance}/importance.csv"),
    log:
        paths("logs/importance/{importance}.log"),
    benchmark:
        paths("benchmarks/importance/{importance}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        **gpus(lambda w: max(study.plan.resources(run).gpu for run in study.plan.importance_runs[w.importance])),
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=120,
    params:
        entry=lambda w: study.config.importance[w.importance].model_dump(),
        runs=lambda w: [run.as_dict() for run in study.plan.importance_runs[w.importance]],
        code=lambda w: study.importance_code(w.importance),
    script:
        "../scripts/gene_importance.py"


rule enrichment:
    input:
        importance=paths("importance/{importance}/importance.csv"),
        gene_sets=lambda w: study.importance_gene_sets(w.importance),
    output:
        enrichment=paths("importance/{importance}/enrichment.csv"),
        prerank=paths("importance/{importance}/prerank.csv"),
        figure=report(
            paths("importance/{importance}/importance.png"),
            caption="../report/importance.rst",
            category="Gene importance",
            labels=lambda w: {"what": study.targets[w.importance][0]},
        ),
    log:
        paths("logs/enrichment/{importance}.log"),
    benchmark:
        paths("benchmarks/enrichment/{importance}.tsv")
    conda:
        "../envs/stmorph.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=30,
    params:
        entry=lambda w: study.config.importance[w.importance].model_dump(),
        code=code_digest("runs.importance", "figures.importance"),
    script:
        "../scripts/enrichment.py"
