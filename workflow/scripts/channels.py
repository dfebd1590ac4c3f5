from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.image.make_channels import make_channels
    from stmorph.image.store import open_store
    from stmorph.slide_file import open_slide

    files = {role: Path(path) for role, path in snakemake.input.items() if role not in ("slide", "image", "record")}
    slide, store, out = open_slide(snakemake.input.slide), open_store(snakemake.input.image), snakemake.output
    print(make_channels(snakemake.params.channels, slide, store, files, out.channels, out.record))
