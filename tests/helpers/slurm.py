"""A private Slurm for tests: a controller and two nodes, on this machine, in one directory."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")
HELD_BACK_S = 8.0
CPUS = 4  # processors that a node declares, whatever the machine has
# jax connects to the first node by its name, so these names are addresses of this machine
NODES = ("127.0.0.1", "127.0.0.2")


def unavailable_reason() -> str | None:
    """Returns why Slurm cannot run here, or None where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"a Slurm of our own needs {', '.join(missing)} (apt install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a Slurm of our own needs root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _configuration(directory: Path, port: int) -> str:
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr={name} Port={port + number} CPUs={CPUS}"
        for number, name in enumerate(NODES, 1)
    )
    return f"""
ClusterName=nemojax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=60
SchedulerParameters=sched_interval=2,bf_interval=2
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName=high Nodes=ALL PriorityTier=2
"""


def _free_ports() -> int:
    """The first of neighbors: one for the controller, and one for each node."""
    while True:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(1 + len(NODES))]
            sockets[0].bind(("127.0.0.1", 0))
            port: int = sockets[0].getsockname()[1]
            try:
                for number, other in enumerate(sockets[1:], 1):
                    other.bind(("127.0.0.1", port + number))
            except (OSError, OverflowError):
                continue
            return port


class CannotStart(Exception):
    """One of its programs has ended; says which, and what it said last."""


class Cluster:
    """Jobs go to the partition `low`, and are preempted, and queued again, by those of `high`."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(directory / "slurm.conf")}

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def submit(self, *arguments: str) -> str:
        """The job's number; what it prints goes to `{number}.log`."""
        return self.run("sbatch", "--parsable", f"--output={self.directory}/%j.log", *arguments).strip()

    def output(self, job: str) -> str:
        log = self.directory / f"{job}.log"
        return log.read_text() if log.exists() else ""

    def about(self, job: str) -> dict[str, str]:
        words = self.run("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 300) -> dict[str, str]:
        """Until it is in one of the states.

        A job that was queued again is held back for two minutes: here for some seconds only, after which the node knows
        no more of its killing, for which it would refuse it.
        """
        until, queued = time.monotonic() + seconds, None
        while (about := self.about(job))["JobState"] not in states:
            assert time.monotonic() < until, f"{about}\n{self.output(job)}"
            if about["JobState"] == "PENDING" and about["Restarts"] != "0":
                queued = queued or time.monotonic()
                if time.monotonic() > queued + HELD_BACK_S:
                    subprocess.run(("scontrol", "update", f"JobId={job}", "StartTime=now"), env=self.environment)
            else:
                queued = None
            time.sleep(0.5)
        return about


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    for name in ("state", "spool"):
        (directory / name).mkdir()
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (directory / "slurm.conf").write_text(_configuration(directory, _free_ports()))
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
    munge = [f"--{option}={directory / name}" for option, name in files.items()]
    slurm = Cluster(directory)
    with ExitStack() as stack:
        for command in (
            ("munged", "--foreground", "--force", *munge, f"--seed-file={directory}/munged.seed"),
            ("slurmctld", "-D"),
            *(("slurmd", "-D", "-N", name) for name in NODES),
        ):
            process = subprocess.Popen(
                command, env=slurm.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            time.sleep(1)
            if process.poll() is not None:
                log = directory / f"{'.'.join([command[0], *command[3:]])}.log"
                said = log.read_text().strip().splitlines() if log.exists() else []
                raise CannotStart(
                    f"{command[0]} ended with {process.poll()}: {said[-1] if said else 'it said nothing'}"
                )
        until = time.monotonic() + 60
        while slurm.run("sinfo", "--noheader", "--format=%D %t", "--partition=low").split() != [
            str(len(NODES)),
            "idle",
        ]:
            if time.monotonic() > until:
                raise CannotStart("the nodes are not idle after a minute")
            time.sleep(0.5)
        stack.callback(subprocess.run, ("scancel", "--user=root", "--full"), env=slurm.environment)
        yield slurm
