# Files that are published and not on disk; only where no data_root is set. `snakemake downloads` lists them.
# Transfers run where the workflow was started: compute nodes often have no internet. `downloads` bounds how many at once.
if study.fetched:

    rule fetch:
        output:
            f"{study.downloads}/{{file}}",
        log:
            f"{study.downloads}/logs/{{file}}.log",
        benchmark:
            f"{study.downloads}/logs/{{file}}.benchmark.tsv"
        wildcard_constraints:
            file=study.fetched_pattern,
        # First of all: a file that cannot be had ends the run before hours are spent, not after.
        priority: 3
        localrule: True
        conda:
            "../envs/stmorph.yaml"
        threads: 1
        resources:
            mem_mb=500,
            runtime=240,
            downloads=1,
        params:
            # Another address is another file. The source holds the rest (mirrors, digest); Snakemake compares plain
            # values only, so a new mirror or a digest that became known fetches nothing anew.
            address=lambda w: study.fetched[f"{study.downloads}/{w.file}"].address,
            source=lambda w: study.fetched[f"{study.downloads}/{w.file}"],
            downloads=study.downloads,
        script:
            "../scripts/fetch.py"


# An archive is read once for all of its members that the study uses.
for number, archived in enumerate(study.archived):

    rule:
        name:
            f"unpack_{number}"
        input:
            archived.path,
        output:
            [member.path for member in archived.members],
        log:
            f"{study.downloads}/logs/unpack_{number}.log",
        benchmark:
            f"{study.downloads}/logs/unpack_{number}.benchmark.tsv"
        conda:
            "../envs/stmorph.yaml"
        threads: asks.cpus("unpack")
        resources:
            **asks("unpack", mem_mb=500, runtime=120),
        params:
            members=[member.address for member in archived.members],
            archived=archived,
        script:
            "../scripts/unpack.py"
