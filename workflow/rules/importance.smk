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
    threads: asks.cpus("importance")
    resources:
        **asks("importance", mem_mb=4000, runtime=120, gpu=lambda w: study.importance_gpu(w.importance)),
    params:
        entry=lambda w: study.config.importance[w.importance].model_dump(),
        runs=lambda w: [run.as_dict() for run in study.plan.importance_runs[w.importance]],
        code=lambda w: study.importance_code(w.importance),
    script:
        "../scripts/gene_importance.py"


rule enrichment:
    input:
        importance=paths("importance/{importance}/importance.csv"),
        gene_sets=lambda w: study.at_hand(study.importance_gene_sets(w.importance)),
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
    threads: asks.cpus("enrichment")
    resources:
        **asks("enrichment", mem_mb=2000, runtime=30),
    params:
        entry=lambda w: study.config.importance[w.importance].model_dump(),
        code=script_digest("enrichment"),
    script:
        "../scripts/enrichment.py"
