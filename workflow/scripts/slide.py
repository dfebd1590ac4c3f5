from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.read import SlideInfo, read_slide, write_slide

    files = {role: Path(path) for role, path in snakemake.input.items()}
    slide = read_slide(snakemake.params.reader, files, SlideInfo(**snakemake.params.info))
    write_slide(slide, Path(snakemake.output[0]))
    print(f"{slide.n_obs} units, {slide.n_vars} genes; not kept: {slide.uns['stmorph']['lost']}")
