from stmorph.job import job, named

with job(snakemake):
    from stmorph.figures import load_figure

    figure = snakemake.params.figure
    kind = load_figure(figure["kind"])
    kind.draw(snakemake.params.runs, kind.Options(**figure["options"]), named(snakemake.input), snakemake.output[0])
