from stmorph.job import job, named

with job(snakemake):
    from stmorph.runs.importance import gene_importance

    gene_importance(snakemake.params.entry, snakemake.params.runs, named(snakemake.input), snakemake.output[0])
