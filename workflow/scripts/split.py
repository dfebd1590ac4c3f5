from stmorph.job import job

with job(snakemake):
    import json

    from stmorph.files import whole
    from stmorph.leakage import leakage_report, refuse_leaks, window_cells
    from stmorph.splits import kept_units, split_units

    config, fold = snakemake.params.split
    units = kept_units(snakemake.input.slides, snakemake.input.tiles)
    split = split_units(units, config, snakemake.wildcards.split, fold)
    cells = window_cells(snakemake.input.slides)
    report = leakage_report(split, snakemake.params.fov_um, config["replication"], cells)
    print(json.dumps(report, indent=1))
    refuse_leaks(report, snakemake.wildcards.split)
    with whole(snakemake.output.split) as partial:
        split.to_parquet(partial, index=False)
    with whole(snakemake.output.leakage) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n")
