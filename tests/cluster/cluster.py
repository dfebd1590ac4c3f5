#!/usr/bin/env python3
"""A real SLURM on this one machine, for tests and for trying things out; nothing of it outside its own folder.

    python tests/cluster/cluster.py start FOLDER         then: export PATH=FOLDER/bin:$PATH; sinfo
    python tests/cluster/cluster.py lose FOLDER gpu1     kill a node with all that runs on it (--daemon: slurmd alone)
    python tests/cluster/cluster.py bring-back FOLDER gpu1
    python tests/cluster/cluster.py stop FOLDER

Needs Debian's or Ubuntu's packages slurm-wlm and munge; no systemd, no cgroups, no database, no root.
Two partitions: `cpu` (the node cpu1) and `gpu` (gpu1 and gpu2, a pretended GPU each).
"""

import argparse
import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "sinfo", "squeue", "scontrol", "scancel", "sacct", "sacctmgr", "sshare")
NODES = {"cpu1": 0, "gpu1": 1, "gpu2": 1}  # name -> GPUs
CPUS = 2  # of each node
MEMORY_MB = 12_000  # of each node; more than there may be, for the jobs are small
WAIT_S = 60
SOCKET_PATH_MAX = 107

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits for cred_expire seconds.
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
# No cgroups and no systemd in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Without cgroups a job's memory is looked at every other second; who uses more than asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# No database: `squeue` knows of ended jobs for MinJobAge seconds, `sacct` knows nothing.
AccountingStorageType=accounting_storage/none
MinJobAge=600
# A dead node is given up soon; a job has KillWait seconds between SIGTERM and SIGKILL.
SlurmdTimeout=10
KillWait=20
ReturnToService=2
SchedulerParameters=sched_interval=5,batch_sched_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/pids/slurmctld
SlurmdPidFile={folder}/pids/%n
SlurmctldLogFile={folder}/logs/slurmctld
SlurmdLogFile={folder}/logs/%n
# The nodes pretend to more than one machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes={cpu_nodes} Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes={gpu_nodes} MaxTime=1-00:00:00 State=UP
"""


def missing_programs() -> list[str]:
    """Return what is not installed of what a cluster needs."""
    return [name for name in (*DAEMONS, *COMMANDS) if _program(name) is None]


class Cluster:
    """A cluster in a folder, running or not; `start`, `stop` and `lose` may be called from different processes."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        self.configuration = self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of who works on this cluster."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until every node is idle."""
        if missing := missing_programs():
            sys.exit(f"not installed: {', '.join(missing)}; on Debian and Ubuntu: apt-get install slurm-wlm munge")
        if self._running("slurmctld"):
            sys.exit(f"a cluster is already running in {self.folder}; stop it first")
        if len(str(self.folder / "munge/socket")) > SOCKET_PATH_MAX:
            sys.exit(f"{self.folder} is too long a path for a socket in it; take a shorter one")
        for name in ("bin", "munge", "state", "pids", "logs", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._configure()
        self._start_munge()
        self._daemon("slurmctld", "-c", "-f", str(self.configuration))
        for node in NODES:
            self.bring_back(node)
        self._wait(lambda: set(self.node_states().values()) == {"idle"}, f"the nodes are {self.node_states()}")

    def stop(self) -> None:
        """End the jobs and the daemons, and only these."""
        if self._running("slurmctld"):
            self.command("scancel", "--user", getpass.getuser(), check=False)
            self._wait(lambda: not self.command("squeue", "--noheader", check=False).strip(), None, seconds=10)
        for process in self._work_on():
            _kill(process, signal.SIGKILL)
        for name in (*NODES, "slurmctld", "munged"):
            self._end(name, signal.SIGTERM)

    def lose(self, node: str, daemon_only: bool = False) -> None:
        """Kill a node: its slurmd and, as when the power fails, all jobs on it."""
        self._end(node, signal.SIGKILL)
        if not daemon_only:
            for process in self._work_on(node):
                _kill(process, signal.SIGKILL)

    def bring_back(self, node: str) -> None:
        """Start a node's slurmd."""
        self._daemon("slurmd", "-N", node, "-f", str(self.configuration), LOOPBACK_NODE=node)

    def command(self, *words: str, check: bool = True) -> str:
        """Run one of SLURM's commands on this cluster and return what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Return node -> state, as sinfo says."""
        lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def jobs(self) -> list[dict[str, str]]:
        """Return every job that SLURM still knows of: id, state, partition, node, gpus, comment."""
        names = ("id", "state", "partition", "node", "gpus", "start", "end", "comment")
        form = "--Format=JobID:|,State:|,Partition:|,NodeList:|,tres-per-job:|,StartTime:|,EndTime:|,Comment:|"
        lines = self.command("squeue", "--states=all", "--noheader", form).splitlines()
        return [dict(zip(names, line.replace("N/A", "").split("|"))) for line in lines]

    # --- how ---

    def _configure(self) -> None:
        ports = dict(zip(("slurmctld", *NODES), _free_ports(1 + len(NODES))))
        host = socket.gethostname().split(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB}" + (f" Gres=gpu:{gpus}" if gpus else "")
            for node, gpus in NODES.items()
        ]
        values = {
            "folder": self.folder,
            "host": host,
            "user": getpass.getuser(),
            "ports": ports,
            "nodes": "\n".join(lines),
            "cpu_nodes": ",".join(node for node, gpus in NODES.items() if not gpus),
            "gpu_nodes": ",".join(node for node, gpus in NODES.items() if gpus),
        }
        self.configuration.write_text(CONFIGURATION.format(**values))
        # SLURM wants a device file a GPU; a terminal's stands in, and nobody opens it.
        devices = {node: number for number, (node, gpus) in enumerate(NODES.items()) if gpus}
        gres = [f"NodeName={node} Name=gpu File=/dev/tty{number}\n" for node, number in devices.items()]
        (self.folder / "gres.conf").write_text("".join(gres))
        # Not by SLURM_CONF alone: Snakemake's plugin takes it from a job's environment before it calls srun.
        for name in COMMANDS:
            command = self.folder / "bin" / name
            command.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {_program(name)} "$@"\n')
            command.chmod(0o755)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(1024))
        files = [f"--key-file={key}", f"--socket={folder}/socket", f"--pid-file={self.folder}/pids/munged"]
        files += [f"--log-file={self.folder}/logs/munged", f"--seed-file={folder}/seed"]
        # --force: a folder below /tmp is enough for a key that guards nothing.
        self._daemon("munged", "--force", *files)

    def _daemon(self, name: str, *arguments: str, **variables: str) -> None:
        environment = {**self.environment, **variables}
        done = subprocess.run(
            [_program(name), *arguments], env=environment, capture_output=True, text=True, timeout=WAIT_S
        )
        if done.returncode:
            sys.exit(f"{name} does not start: {done.stderr.strip()} (see {self.folder / 'logs'})")

    def _pid(self, name: str) -> int | None:
        try:
            return int((self.folder / "pids" / name).read_text())
        except (OSError, ValueError):
            return None

    def _running(self, name: str) -> bool:
        pid = self._pid(name)
        return pid is not None and _environment(pid).get("SLURM_CONF") == str(self.configuration)

    def _end(self, name: str, number: int) -> None:
        if self._running(name):
            pid = self._pid(name)
            _kill(pid, number)
            self._wait(lambda: not _environment(pid), f"{name} ({pid}) does not end", seconds=20)
        (self.folder / "pids" / name).unlink(missing_ok=True)

    def processes(self, **variables: str) -> list[int]:
        """Return this cluster's processes whose environment has these values; an empty value stands for any."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            environment = _environment(int(entry.name))
            if environment.get("SLURM_CONF") == str(self.configuration) and all(
                name in environment and value in ("", environment[name]) for name, value in variables.items()
            ):
                found.append(int(entry.name))
        return found

    def _work_on(self, node: str = "") -> list[int]:
        """Return what runs on a node, or on all; the steps' daemons first, for they would tell of the others' end."""
        daemons = {self._pid(name) for name in (*NODES, "slurmctld", "munged")}
        found = [*self.processes(LOOPBACK_NODE=node), *self.processes(SLURMD_NODENAME=node)]
        return [pid for pid in dict.fromkeys(found) if pid not in daemons]

    def _wait(self, condition, complaint: str | None, seconds: float = WAIT_S) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                if complaint is None:
                    return
                sys.exit(f"{complaint} (see {self.folder / 'logs'})")
            time.sleep(0.2)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _environment(pid: int) -> dict[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(item.split("=", 1) for item in content.split("\0") if "=" in item)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below the range that outgoing connections take theirs from."""
    found: list[int] = []
    for port in range(21_000 + secrets.randbelow(9_000), 32_000):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    sys.exit("there is no free port from 21000 to 32000")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop", "lose", "bring-back"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("node", nargs="?", choices=list(NODES))
    parser.add_argument("--daemon", action="store_true", help="lose slurmd alone; its jobs run on")
    given = parser.parse_args()
    cluster = Cluster(given.folder)
    if given.action in ("lose", "bring-back") and given.node is None:
        parser.error(f"{given.action}: which node? One of {', '.join(NODES)}")
    if given.action == "start":
        cluster.start()
        print(f"export PATH={cluster.folder / 'bin'}:$PATH")
    elif given.action == "stop":
        cluster.stop()
    elif given.action == "lose":
        cluster.lose(given.node, daemon_only=given.daemon)
    else:
        cluster.bring_back(given.node)


if __name__ == "__main__":
    main()
