"""What usually breaks on a cluster, looked at in a minute and told a line each, with what to change."""

import getpass
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .findings import Finding, Wanted, error, warning
from .node_checks import check_nodes
from .partition_checks import check_partitions, check_requests
from .profiles import defaults
from .slurm import Answer, ask, configuration, missing_commands, partitions, seconds_of

LONGEST_LOOK_S = 180  # the plugin's longest pause between two looks
KILL_WAIT_S = 20  # what a checkpoint of a large model may take
GB = 2**30


def check_cluster(wanted: Wanted) -> Iterator[Finding]:
    """Yield what is well and what is not; stops early where nothing further can be known."""
    yield from check_disk(wanted.folder)
    yield from check_tokens(wanted.tokens or {})
    if missing := missing_commands():
        yield error("commands", f"{', '.join(missing)} not found; log in to the cluster or load its module")
        return
    settings = configuration()
    if not settings:
        yield error("controller", f"no answer ({ask('scontrol', 'ping').why}); ask the site whether SLURM is up")
        return
    yield Finding("ok", "controller", f"{settings.get('ClusterName', '?')}, {settings.get('SLURM_VERSION', '?')}")
    yield from check_environment(os.environ)
    yield from check_status_command(wanted.profile, settings, ask("sacct", "-n", "-X", "--starttime", "now-1hour"))
    yield from check_ends_of_jobs(settings)
    yield from check_account(wanted.profile, settings)
    found = partitions()
    used = list(check_partitions(wanted, found))
    yield from used
    if any(finding.level == "error" for finding in used):
        return
    yield from check_requests(wanted, found)
    yield from check_nodes(wanted, found)


def check_environment(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a job can reach SLURM: the plugin takes SLURM's variables from it before it calls srun."""
    if "SLURM_CONF" in variables and ask("env", "-u", "SLURM_CONF", "scontrol", "ping").status:
        yield error(
            "SLURM_CONF", "SLURM is found by this variable alone, which jobs lose before srun; ask the site for "
            "/etc/slurm/slurm.conf, or put first on the PATH an srun that sets it"
        )  # fmt: skip
    if "SLURM_JOB_ID" in variables:
        yield warning("here", "this is a job itself; start snakemake on the login node, for a job's time is limited")


def check_status_command(profile: Mapping[str, Any], settings: Mapping[str, str], sacct: Answer) -> Iterator[Finding]:
    """Whether the ends of jobs are seen: by sacct with a database, by squeue while MinJobAge lasts."""
    command = profile.get("slurm-status-command", "sacct")
    age = seconds_of(settings.get("MinJobAge", "")) or 0
    first = int(profile.get("slurm-init-seconds-before-status-checks", 40))
    longest = min(int(profile.get("seconds-between-status-checks", LONGEST_LOOK_S)), LONGEST_LOOK_S)
    needed = max(3 * first, 2 * longest)
    enough = age >= needed
    if sacct.status == 0 and (command == "sacct" or enough):
        yield Finding("ok", "status", f"{command} works (sacct has a database, MinJobAge is {age} s)")
    elif sacct.status == 0:
        yield warning("status", f"MinJobAge is {age} s, below {needed}; set slurm-status-command: sacct")
    elif command == "sacct":
        yield error("status", f"sacct does not work here ({sacct.why}); set slurm-status-command: squeue")
    elif enough:
        yield Finding("ok", "status", f"squeue works (MinJobAge is {age} s; sacct: {sacct.why})")
    else:
        yield error(
            "status", f"jobs vanish from squeue {age} s after their end and sacct does not work; ask the site for "
            f"MinJobAge={needed}, or set slurm-init-seconds-before-status-checks to {max(age // 3, 1)} and "
            f"seconds-between-status-checks to {max(age // 2, 1)}"
        )  # fmt: skip


def check_ends_of_jobs(settings: Mapping[str, str]) -> Iterator[Finding]:
    """What happens to a job that is pre-empted or out of time."""
    mode = settings.get("PreemptMode", "OFF").upper()
    if "CANCEL" in mode:
        yield warning("pre-emption", f"PreemptMode={mode}: a pre-empted job does not come back; run snakemake again")
    wait = seconds_of(settings.get("KillWait", "")) or 0
    if 0 < wait < KILL_WAIT_S:
        yield warning(
            "time limit", f"only {wait} s from SIGTERM to SIGKILL; for long trainings set a shorter "
            "`checkpoint_minutes`, for what is since the last checkpoint may be lost"
        )  # fmt: skip


def check_account(profile: Mapping[str, Any], settings: Mapping[str, str]) -> Iterator[Finding]:
    """Whether jobs must be charged to an account."""
    enforced = settings.get("AccountingStorageEnforce", "none").lower()
    if "associations" in enforced and "slurm_account" not in defaults(profile, "default-resources"):
        known = ask("sacctmgr", "-n", "-P", "list", "associations", f"user={getpass.getuser()}", "format=account")
        names = sorted(set(known.output.split()))
        hint = f"one of {', '.join(names)}" if names else "as the site tells you"
        yield warning("account", f"set default-resources: slurm_account ({hint})")


def check_disk(folder: Path) -> Iterator[Finding]:
    """Whether there is room for results."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize / GB
    level = "error" if free < 1 else "warning" if free < 20 else "ok"
    hint = "" if level == "ok" else "; a full study needs tens of GB: free some, or run elsewhere"
    yield Finding(level, "disk", f"{free:.0f} GB free in {folder}{hint}")


def check_tokens(tokens: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the keys to data behind a gate are there: variable -> dataset that needs it."""
    for variable, dataset in tokens.items():
        if os.environ.get(variable):
            yield Finding("ok", "tokens", f"{variable} is set")
        else:
            yield error("tokens", f"{dataset} cannot be fetched; export {variable}=... (README of the data set)")
