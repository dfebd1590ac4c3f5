"""Several processes that train together: which of them this one is, and how those on several nodes are started.

On one node Fabric starts the script again for each further device. On several nodes the script starts itself once more
for each device by `srun`, and Fabric finds its place by SLURM's variables. The process that called srun does not train:
it owns the run's folder and waits.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from ..errors import ConfigError, StmorphError
from .signals import stop_requests

STARTED = "STMORPH_STARTED_BY_SRUN"
"""Set for the processes that this module starts. SLURM's own variables are also those of a job that trains alone."""
KEPT = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME")
"""Which job this is; what else SLURM says to a step would become options of the next."""


def by_srun() -> bool:
    """Return whether this is one of the processes of a training on several nodes."""
    return STARTED in os.environ


def is_helper() -> bool:
    """Return whether another process of this training comes before this one and has the files and the log."""
    return int(os.environ.get("SLURM_PROCID" if by_srun() else "LOCAL_RANK", "0")) > 0


def no_nodes(nodes: int) -> ConfigError:
    """Return what is said where a training on several nodes is asked for and there are none."""
    return ConfigError(
        f"training.nodes is {nodes}, which only a job of SLURM can have; expected 1 here: set it to 1 (more GPUs of "
        "one machine are training.devices), or run the workflow with --profile profiles/slurm"
    )


def train_on_nodes(nodes: int, devices: int, cpus: int) -> None:
    """Run this script again, `devices` times on each of the job's `nodes`, and wait for all.

    Parameters
    ----------
    cpus
        CPU cores of each process.

    Raises
    ------
    ConfigError
        This is no job of SLURM.
    StmorphError
        A process failed, or SLURM did not start them.
    SystemExit
        SIGTERM (143) or SIGUSR1 (138) came and the processes have saved.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise no_nodes(nodes)
    kept = {key: value for key, value in os.environ.items() if key in KEPT or not key.startswith(("SLURM_", "SRUN_"))}
    variables = kept | {STARTED: "1", "MASTER_ADDR": socket.gethostname(), "MASTER_PORT": str(_free_port())}
    shape = [f"--nodes={nodes}", f"--ntasks={nodes * devices}", f"--ntasks-per-node={devices}"]
    # One that fails ends the others, which would wait for it for ever; the step may take what the job's others have.
    how = [f"--cpus-per-task={cpus}", "--mpi=none", "--kill-on-bad-exit=1", "--overlap"]
    script = [sys.executable, str(Path(sys.argv[0]).absolute()), *sys.argv[1:]]
    try:
        process = subprocess.Popen(["srun", *shape, *how, *script], env=variables)
    except OSError as error:
        raise StmorphError(f"srun cannot be started ({error}); training.nodes is {nodes} and needs it") from error
    # A request is passed on by SIGUSR1, which srun hands to its processes; at SIGTERM it kills them.
    with stop_requests(pass_on=lambda: process.send_signal(signal.SIGUSR1)) as stop:
        status = process.wait()
    if status and (stop.number or status in (128 + signal.SIGTERM, 128 + signal.SIGUSR1)):
        raise SystemExit(128 + stop.number if stop.number else status)
    if status:
        raise StmorphError(
            f"the training on {nodes} nodes ended with status {status}; the lines above in this log say why"
        )


def _free_port() -> int:
    """Return a port of this node, on which the first process runs too, that nobody listens on."""
    with closing(socket.socket()) as attempt:
        attempt.bind(("", 0))
        return attempt.getsockname()[1]
