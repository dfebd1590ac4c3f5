from stmorph.job import job, named

with job(snakemake):
    from stmorph.runs.sample import sample_run

    sample_run(snakemake.params.run, named(snakemake.input), snakemake.output[0])
