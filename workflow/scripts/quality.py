from stmorph.job import job

with job(snakemake):
    import json

    from stmorph.files import whole
    from stmorph.quality.measure import measure
    from stmorph.quality.page import draw_page

    inputs, params = snakemake.input, snakemake.params
    tilings = dict(zip(params.tilings, zip(inputs.tiles, inputs.records)))
    measured = measure(inputs.slide, inputs.image, tilings, params.seed)
    draw_page(measured, snakemake.output.page)
    with whole(snakemake.output.record) as partial:
        partial.write_text(json.dumps(measured.record, indent=1) + "\n", encoding="utf-8")
    print(f"registration: {measured.record['registration']['verdict']}: {measured.record['registration']['sentence']}")
