"""What stmorph adds to Snakemake's SLURM plugin, and a look at a cluster before hours are spent on it."""
