# The front door. Everything is in workflow/; `snakemake` without a target makes `all` of the configured study.
include: "workflow/Snakefile"
