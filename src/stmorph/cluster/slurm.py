"""Questions to SLURM's own commands, answered as plain values."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field

COMMANDS = ("sbatch", "sinfo", "squeue", "scontrol", "scancel", "srun")


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    output: str
    error: str

    @property
    def why(self) -> str:
        """The last line of what went wrong, without the command's name."""
        lines = (self.error or self.output).strip().splitlines()
        return re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else f"status {self.status}"


@dataclass(frozen=True)
class Partition:
    """A partition as `scontrol show partition` tells it."""

    name: str
    default: bool
    up: bool
    minutes: float
    gpus: int
    fields: dict[str, str] = field(compare=False, repr=False, default_factory=dict)


def missing_commands() -> list[str]:
    """Return which of SLURM's commands are not on the PATH."""
    return [name for name in COMMANDS if shutil.which(name) is None]


def ask(*words: str, seconds: float = 30, script: str | None = None) -> Answer:
    """Run a command with a time limit; too late counts as failed, with status 124."""
    # What a surrounding job has set would silently become options of ours.
    prefixes = ("SLURM_", "SBATCH_", "SRUN_")
    inherited = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or not key.startswith(prefixes)}
    try:
        done = subprocess.run(
            words, input=script or "", capture_output=True, text=True, timeout=seconds, env=inherited, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {seconds:g} seconds")
    except OSError as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


def configuration() -> dict[str, str]:
    """Return the controller's configuration; empty where it does not answer."""
    lines = ask("scontrol", "show", "config").output.splitlines()
    return {key.strip(): value.strip() for key, mark, value in (line.partition("=") for line in lines) if mark}


def seconds_of(value: str) -> int | None:
    """Return a duration of the configuration ("300 sec") in seconds; None where it is none."""
    found = re.match(r"(\d+)", value)
    return int(found[1]) if found else None


def partitions() -> dict[str, Partition]:
    """Return name -> partition; GPUs are the most of a node."""
    gpus: dict[str, int] = {}
    for line in ask("sinfo", "--noheader", "--format=%R|%G").output.splitlines():
        name, _, gres = line.partition("|")
        gpus[name] = max(gpus.get(name, 0), gpus_of(gres))
    found = {}
    for block in ask("scontrol", "--oneliner", "show", "partition").output.splitlines():
        fields = dict(item.split("=", 1) for item in block.split() if "=" in item)
        if "PartitionName" in fields:
            name = fields["PartitionName"]
            found[name] = Partition(
                name=name,
                default=fields.get("Default") == "YES",
                up=fields.get("State") == "UP",
                minutes=minutes_of(fields.get("MaxTime", "UNLIMITED")),
                gpus=gpus.get(name, 0),
                fields=fields,
            )
    return found


def largest_nodes(gpus: int) -> dict[str, int]:
    """Return partition -> memory in MB that jobs can have on its largest node with so many GPUs."""
    found: dict[str, int] = {}
    for line in ask("scontrol", "--oneliner", "show", "node").output.splitlines():
        fields = dict(item.split("=", 1) for item in line.split() if "=" in item)
        if gpus_of(fields.get("Gres", "")) < gpus or "RealMemory" not in fields:
            continue
        memory = int(fields["RealMemory"]) - int(fields.get("MemSpecLimit", 0))
        for name in fields.get("Partitions", "").split(","):
            found[name] = max(found.get(name, 0), memory)
    return found


def gpus_of(gres: str) -> int:
    """Return the number of GPUs of a node ("gpu:a100:4(S:0-1),tmp:9"), the most of one kind; 0 without."""
    return max((int(count) for count in re.findall(r"gpu(?::[^:(,]+)?:(\d+)", gres)), default=0)


def minutes_of(limit: str) -> float:
    """Return a time limit of SLURM ("UNLIMITED", "2-12:30:00", "45:00") in minutes."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return float("inf")
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:  # minutes, minutes:seconds or hours:minutes:seconds
        hours, minutes, seconds = (0, *parts, 0)[:3] if len(parts) < 3 else parts
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
