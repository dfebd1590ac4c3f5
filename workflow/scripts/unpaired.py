from stmorph.job import job

with job(snakemake):
    from stmorph.read.spider import SpiderOptions, unpack
    from stmorph.read.spider_archive import parts_in_order

    options = SpiderOptions(**snakemake.params.options).model_dump()
    made = unpack(parts_in_order(dict(snakemake.input.items())), *snakemake.output, **options)
    print(f"{made.tiles} tiles; left out: {made.lost}")
