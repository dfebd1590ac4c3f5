from stmorph.job import job

with job(snakemake):
    from stmorph.simulate import programme_gmt

    programme_gmt(snakemake.output[0])
