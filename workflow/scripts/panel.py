from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.panels import choose_panel, split_genes, training_slides, write_panel

    slides = training_slides(snakemake.input.slides, snakemake.input.split)
    tested = split_genes(snakemake.input.slides, snakemake.input.split)
    panel = choose_panel(slides, snakemake.params.panel, snakemake.wildcards.panel, tested)
    write_panel(panel, Path(snakemake.output[0]))
    print(f"{len(panel.genes)} genes; {panel.record}")
