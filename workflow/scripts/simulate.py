from stmorph.job import job

with job(snakemake):
    from pathlib import Path

    from stmorph.files import remove_leftovers_below
    from stmorph.simulate import SimulationOptions, simulate_slide

    options = SimulationOptions(**snakemake.params.options)
    out_dir = Path(snakemake.output.truth_json).parent
    remove_leftovers_below(out_dir)  # a slide has more files than the dataset names as its own
    simulate_slide(options, out_dir, snakemake.wildcards.slide, snakemake.params.patient, snakemake.params.seed)
