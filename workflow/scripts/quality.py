import sys

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
    found = measured.record["registration"]
    print(f"registration: {found['verdict']}: {found['sentence']}")

# Behind the log, on the terminal: nothing stops for it, and few open every page.
if found["verdict"] != "pass":
    slide = f"{measured.record['dataset']}/{measured.record['slide']}"
    print(
        f"stmorph: look at {snakemake.output.page}: {slide}: {found['verdict']}: {found['sentence']}", file=sys.stderr
    )
