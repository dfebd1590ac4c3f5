from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.simulate import SimulationOptions, simulate_slide

    options = SimulationOptions(**snakemake.params.options)
    out_dir = Path(snakemake.output.truth_json).parent
    simulate_slide(options, out_dir, snakemake.wildcards.slide, snakemake.params.patient, snakemake.params.seed)
