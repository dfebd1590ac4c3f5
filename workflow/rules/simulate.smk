# Simulated tissue with a known answer, in the vendor's own file layout; everything after it is the ordinary pipeline.
for name, dataset in study.study.datasets.items():
    if dataset.simulate is not None:

        rule:
            name:
                f"simulate_{name}"
            output:
                **{
                    role: source.path.replace(study.slides(name)[0], "{slide}")
                    for role, source in study.sources(name, study.slides(name)[0]).items()
                },
            log:
                paths(f"logs/simulate/{name}/{{slide}}.log"),
            benchmark:
                paths(f"benchmarks/simulate/{name}/{{slide}}.tsv")
            conda:
                "../envs/stmorph.yaml"
            threads: asks.cpus("simulate")
            resources:
                **asks("simulate", mem_mb=2000, runtime=20),
            params:
                options=lambda w, dataset=dataset: {**dataset.simulate, **dataset.slides[w.slide].simulate},
                patient=lambda w, dataset=dataset: dataset.slides[w.slide].patient,
                seed=study.config.seeds[0],
                code=script_digest("simulate"),
            script:
                "../scripts/simulate.py"

        rule:
            name:
                f"simulate_{name}_gene_sets"
            output:
                study.gene_sets(name, "programmes"),
            log:
                paths(f"logs/simulate/{name}/gene_sets.log"),
            benchmark:
                paths(f"benchmarks/simulate/{name}/gene_sets.tsv")
            localrule: True
            conda:
                "../envs/stmorph.yaml"
            threads: 1
            resources:
                mem_mb=500,
                runtime=5,
            params:
                code=script_digest("gene_sets"),
            script:
                "../scripts/gene_sets.py"
