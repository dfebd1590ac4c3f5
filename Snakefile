# The front door. Everything is in workflow/; `snakemake` without a target makes `all` of the configured study.
include: "workflow/Snakefile"


# An included file does not set the default target of the file that includes it.
workflow.default_target = "all"
