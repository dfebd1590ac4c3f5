from stmorph.job import job

with job(snakemake):
    from stmorph.runs.importance import enrich

    inputs = snakemake.input
    enrich(snakemake.params.entry, inputs.importance, inputs.gene_sets, dict(snakemake.output.items()))
