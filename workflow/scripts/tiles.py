from stmorph.job import job

with job(snakemake):
    from stmorph.files import whole
    from stmorph.image.source import open_image
    from stmorph.image.store import build_store, open_store
    from stmorph.image.tiles import TilingOptions, losses, tile_table
    from stmorph.slide_file import open_slide

    options = TilingOptions(**snakemake.params.options)
    slide = open_slide(snakemake.input.slide)
    about, out = slide.about, snakemake.output
    image = open_image(snakemake.input.image)
    reference = open_image(snakemake.input.reference[0]) if snakemake.input.reference else None
    source_um = float(about["um_per_px"])
    build_store(image, source_um, options.um_per_px, options.stain, out.image, out.record, reference, about["slide"])
    in_tissue = slide.obs["in_tissue"].to_numpy(dtype=bool)
    store = open_store(out.image)
    table = tile_table(about["slide"], slide.obs_names, slide.spatial_um, in_tissue, store, options)
    with whole(out.tiles) as partial:
        table.to_parquet(partial, index=False)
    print(f"{int(table['kept'].sum())} of {len(table)} tiles kept; lost: {losses(table)}")
