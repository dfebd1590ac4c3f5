from stmorph.job import job

with job(snakemake):
    from stmorph.fetch import fetch

    fetch(**snakemake.params.source)
