from stmorph.job import job, named

with job(snakemake):
    from stmorph.runs.score import score_run

    params = snakemake.params
    score_run(params.run, named(snakemake.input), params.scores, params.encoder, dict(snakemake.output.items()))
