from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.bundle.pack import pack

    results = Path(snakemake.params.results)
    files = [Path(file).relative_to(results).as_posix() for file in snakemake.input]
    manifest = pack(snakemake.params.about, results, files, snakemake.output[0])
    print(f"{snakemake.output[0]}: {len(manifest.files)} files")
