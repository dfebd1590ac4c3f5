from stmorph.job import job

with job(snakemake):
    from stmorph.files import whole
    from stmorph.quality.summary import gather_quality, quality_html, quality_markdown

    table = gather_quality(snakemake.input)
    with whole(snakemake.output.csv) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    with whole(snakemake.output.md) as partial:
        partial.write_text(quality_markdown(table), encoding="utf-8")
    with whole(snakemake.output.html) as partial:
        partial.write_text(quality_html(table), encoding="utf-8")
