from stmorph.job import job

with job(snakemake):
    from stmorph.fetch.archives import unpack

    unpack(snakemake.input[0], snakemake.params.archived.members)
