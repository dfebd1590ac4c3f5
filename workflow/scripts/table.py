from stmorph.job import job

with job(snakemake):
    from stmorph.files import whole
    from stmorph.tables import gather, to_html, to_markdown

    table, params = snakemake.params.table, snakemake.params
    about = {"name": snakemake.wildcards.table, "paper": params.paper, "datasets": params.datasets}
    gathered = gather(table, params.cells)
    with whole(snakemake.output.csv) as partial:
        gathered.to_csv(partial, index=False, float_format="%.6g")
    with whole(snakemake.output.md) as partial:
        partial.write_text(to_markdown(gathered, table, about), encoding="utf-8")
    with whole(snakemake.output.html) as partial:
        partial.write_text(to_html(gathered, table, about), encoding="utf-8")
