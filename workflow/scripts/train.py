from stmorph.job import job, named

with job(snakemake):
    from stmorph.runs.train import train_run

    train_run(
        snakemake.params.run,
        named(snakemake.input),
        dict(snakemake.output.items()),
        snakemake.params.work,
        snakemake.params.code,
        snakemake.threads,
    )
