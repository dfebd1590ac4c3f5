from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.read import READERS, SlideInfo, read_slide, write_slide

    files = {role: Path(path) for role, path in snakemake.input.items()}
    reader = READERS[snakemake.params.reader]
    info, options = SlideInfo(**snakemake.params.info), reader.Options(**snakemake.params.options)
    slide = read_slide(reader, files, info, options, lazy=True)
    write_slide(slide, Path(snakemake.output[0]))
    print(
        f"{slide.n_obs} {slide.uns['stmorph']['unit']}s, {slide.n_vars} genes; not kept: {slide.uns['stmorph']['lost']}"
    )
