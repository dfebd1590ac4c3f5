import os
import sys

from stmorph.job import job

# The bar belongs on the screen, where there is one; all else that is printed goes to the log.
screen = os.fdopen(os.dup(2), "w") if sys.stderr.isatty() else None
with job(snakemake):
    from stmorph.fetch import fetch

    fetch(snakemake.params.source, snakemake.params.downloads, screen)
