"""What a node sees of what is here: one small job in a partition of each kind."""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .findings import Finding, Wanted, error, job_words, warning
from .partition_checks import cpu_partitions, gpu_partitions, gpu_words
from .slurm import Answer, Partition, ask


def check_nodes(wanted: Wanted, found: Mapping[str, Partition]) -> Iterator[Finding]:
    """Run one small job in a partition of each kind: what does a node see of what is here?"""
    conda = "conda" in str(wanted.profile.get("software-deployment-method", ""))
    for name, gpu in _samples(wanted.profile, found):
        with tempfile.TemporaryDirectory(prefix=".check-cluster-", dir=wanted.folder) as folder:
            words = gpu_words(wanted.profile, 1) if gpu else []
            script = _probe(Path(folder) / "touched", conda, gpu)
            call = ["srun", "--quiet", "-n1", *job_words(wanted, name), *words, f"--chdir={wanted.folder}"]
            answer = ask(*call, "/bin/sh", "-s", seconds=wanted.wait_s, script=script)
            touched = (Path(folder) / "touched").exists()
        yield from node_findings(name, answer, touched, wanted, conda)


def node_findings(name: str, answer: Answer, touched: bool, wanted: Wanted, conda: bool) -> Iterator[Finding]:
    """Say what a node's answers mean."""
    about = f"node in {name}"
    if answer.status == 124:
        yield warning(about, f"none was free within {wanted.wait_s} s; look again later, or with --wait")
        return
    said = dict(line.split("=", 1) for line in answer.output.splitlines() if "=" in line)
    if "node" not in said:
        yield error(about, f"no job runs there ({answer.why}); try: srun -p {name} hostname")
        return
    about = f"{about} ({said['node']})"
    well = True
    if not touched or said.get("write") != "yes":
        well = False
        yield error(about, f"does not share {wanted.folder} with this machine; run from a file system that both see")
    if said.get("python") != "yes" and not conda:
        well = False
        yield error(
            about, f"cannot start {sys.executable}; put the checkout with its .venv on a shared file system, or set "
            "software-deployment-method: [conda]"
        )  # fmt: skip
    if conda and said.get("conda") != "yes":
        well = False
        yield error(about, "has no conda on its PATH; load it before snakemake is started, jobs inherit the PATH")
    if said.get("cache") != "yes":
        well = False
        yield warning(about, "cannot write the cache folder; set XDG_CACHE_HOME to a folder on a shared file system")
    if said.get("gpu") == "no":
        well = False
        yield warning(about, "has no nvidia-smi, or it shows no GPU; training would run on its CPU")
    if well:
        yield Finding("ok", about, "shares the folder, starts Python, can write the cache")


def _samples(profile: Mapping[str, Any], found: Mapping[str, Partition]) -> list[tuple[str, bool]]:
    cpu, gpu = cpu_partitions(profile, found)[:1], gpu_partitions(profile, found)[:1]
    return [*((name, False) for name in cpu if name not in gpu), *((name, True) for name in gpu)]


def _probe(mark: Path, conda: bool, gpu: bool) -> str:
    """Return a shell script that prints key=yes or key=no."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tests = {
        "write": f"touch {shlex.quote(str(mark))}",
        "python": f"{shlex.quote(sys.executable)} -c 'import snakemake'",
        "cache": f"mkdir -p {shlex.quote(str(cache))} && test -w {shlex.quote(str(cache))}",
    }
    tests |= {"conda": "conda --version"} if conda else {}
    tests |= {"gpu": "nvidia-smi -L | grep -q GPU"} if gpu else {}
    lines = [f"if {test} >/dev/null 2>&1; then echo {key}=yes; else echo {key}=no; fi" for key, test in tests.items()]
    return "\n".join(["echo node=${SLURMD_NODENAME:-$(hostname)}", *lines, ""])
