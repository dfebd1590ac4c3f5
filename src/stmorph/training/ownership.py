"""One process at a time works in a run's folder: an owner with a heartbeat, on any shared file system.

A training may outlive the workflow that started it (a cluster's job does), and the workflow started again submits it a
second time. The second copy waits here for the first and takes over only when that is gone. File locks would do on one
machine; many clusters' file systems have none, or keep them to one node.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..files import remove_leftovers_below

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between two beats."""
GONE_S = 120.0
"""Without a beat for so long an owner on another machine is gone: many beats, for network file systems show late."""


@contextmanager
def owned(folder: str | Path, beat_s: float = BEAT_S, gone_s: float = GONE_S) -> Iterator[None]:
    """Wait until no other process owns `folder`, own it, and clear what a killed owner left half-written.

    An owner on this machine is gone when its process is; one elsewhere when its heart has not beaten for `gone_s`,
    by the file system's own clock. An owner that was taken for gone (suspended, cut off) and comes back asks itself to
    stop (SIGTERM), so that two never write for long.

    Parameters
    ----------
    folder
        Made if missing; `owner.json` in it tells who owns it.
    beat_s, gone_s
        Seconds between two beats, and without one.
    """
    claim = _Claim(Path(folder), gone_s)
    claim.path.parent.mkdir(parents=True, exist_ok=True)
    claim.take(poll_s=min(1.0, beat_s))
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(claim, beat_s, stop), daemon=True)
    heart.start()
    try:
        remove_leftovers_below(claim.path.parent)
        yield
    finally:
        stop.set()
        heart.join()
        claim.release()


def _beat(claim: "_Claim", beat_s: float, stop: threading.Event) -> None:
    while not stop.wait(beat_s):
        try:
            held = claim.beat()
        except OSError as error:  # a file system that is away for a moment
            log.warning("%s could not be touched (%s)", claim.path, error)
            continue
        if not held:
            log.warning("%s was taken over by another process; this one stops", claim.path.parent)
            os.kill(os.getpid(), signal.SIGTERM)
            return


class _Claim:
    def __init__(self, folder: Path, gone_s: float):
        self.path, self.gone_s = folder / "owner.json", gone_s
        self.token = uuid.uuid4().hex
        self._probe = folder / f"owner-{self.token}.probe"

    def take(self, poll_s: float) -> None:
        told = ""
        while not self._create():
            holder = self._holder()
            if holder is None:
                continue  # released this moment
            why = self._why_gone(holder)
            if why:
                log.warning("%s: its owner (%s) is gone (%s); taking over", self.path.parent, _name(holder), why)
                self._clear(holder)
                continue
            if told != holder.get("token", ""):
                told = holder.get("token", "")
                log.warning("%s is at work in %s; waiting for its end", _name(holder), self.path.parent)
            time.sleep(poll_s)

    def beat(self) -> bool:
        """Touch the claim; return whether it is still ours."""
        holder = self._holder()
        if holder is None or holder.get("token") != self.token:
            return False
        os.utime(self.path)
        return True

    def release(self) -> None:
        with suppress(OSError):
            if (self._holder() or {}).get("token") == self.token:
                self.path.unlink()

    def _create(self) -> bool:
        content = {"token": self.token, "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
        content["started"] = psutil.Process().create_time()
        if "SLURM_JOB_ID" in os.environ:
            content["job"] = os.environ["SLURM_JOB_ID"]
        try:
            with self.path.open("x") as file:
                file.write(json.dumps(content))
        except FileExistsError:
            return False
        return True

    def _holder(self) -> dict | None:
        """Return what the claim says; empty while it is being written, None where there is none."""
        try:
            content = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _why_gone(self, holder: dict) -> str:
        if "started" in holder and holder["machine"] == _machine() and not _alive(holder):
            return "its process has ended"
        # The age by the file system's clock: machines' own clocks differ.
        try:
            self._probe.touch()
            age_s = self._probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return ""
        finally:
            self._probe.unlink(missing_ok=True)
        return f"no sign of life for {age_s:.0f} s" if age_s > self.gone_s else ""

    def _clear(self, holder: dict) -> None:
        """Remove the claim of an owner that is gone; of several that try, one succeeds."""
        taken = self.path.with_name(f"owner-{self.token}.gone")
        try:
            self.path.rename(taken)
        except FileNotFoundError:
            return
        try:
            found = json.loads(taken.read_text()).get("token")
        except (ValueError, AttributeError):
            found = None
        if found != holder.get("token"):
            # Another waiter was faster and owns the folder by now: what was taken away is its claim.
            with suppress(OSError):
                os.link(taken, self.path)
        taken.unlink(missing_ok=True)


def _machine() -> str:
    """Return what tells this machine, this boot and this container's processes from all others."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _alive(holder: dict) -> bool:
    try:
        process = psutil.Process(holder["pid"])
        # A number is given again, and a dead process keeps its own until its parent has asked for it.
        return process.create_time() == holder["started"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(holder: dict) -> str:
    job = f"job {holder['job']}, " if "job" in holder else ""
    return f"{job}process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"
