from stmorph.job import job

with job(snakemake):
    from stmorph.read.spider import SpiderOptions, parts_in_order, unpack

    options = SpiderOptions(**snakemake.params.options).model_dump()
    made = unpack(parts_in_order(dict(snakemake.input.items())), *snakemake.output, **options)
    print(f"{made.tiles} tiles; left out: {made.lost}")
