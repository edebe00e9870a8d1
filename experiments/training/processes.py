"""The processes of a training job: how many there are, which one this is, and where they meet.

All three come from one of these, the first that is there; a flag or a variable replaces one of the three:

flags         --coordinator, --processes, --process
variables     JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID
Open MPI      the variables of mpirun; jax finds the coordinator
Slurm         the variables of srun; jax finds the coordinator
Kubernetes    JOB_COMPLETION_INDEX of an indexed Job; it is the index alone
jax           what else jax detects, such as the hosts of a TPU
"""

import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax

from nemojax.errors import ConfigError, shown

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
FLAGS = {COORDINATOR: "--coordinator", COUNT: "--processes", INDEX: "--process"}
VALUES = {COORDINATOR: "HOST:PORT", COUNT: "N", INDEX: "I"}
LOCAL_DEVICES = "JAX_LOCAL_DEVICE_IDS"  # jax reads it
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
OPEN_MPI = {COORDINATOR: "OMPI_MCA_orte_hnp_uri", COUNT: "OMPI_COMM_WORLD_SIZE", INDEX: "OMPI_COMM_WORLD_RANK"}
SLURM = {COORDINATOR: "SLURM_STEP_NODELIST", COUNT: "SLURM_NTASKS", INDEX: "SLURM_PROCID"}
SLURM_JOB, SLURM_LOCAL = "SLURM_JOB_ID", "SLURM_LOCALID"
PORT = re.compile("[0-9]{1,5}")
KUBERNETES = {INDEX: "JOB_COMPLETION_INDEX"}
WAIT_S = 20.0  # after which a process reports that it waits for the others
TIMEOUT_S = 300.0  # after which it ends


@dataclass(frozen=True)
class Processes:
    """The processes of a job.

    Attributes:
      source: what named them, for the log.
      coordinator: HOST:PORT of process 0; None where jax finds it.
      count, index: their number, and that of this one; None where jax finds them.
      method: jax's detection of what is None: "ompi" or "slurm", "deactivate" for none, None for any.
      devices: the local devices to use; () for all, None for jax's choice.
    """

    source: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    method: str | None = None
    devices: tuple[int, ...] | None = None


def find(
    environment: Mapping[str, str], coordinator: str | None = None, count: int | None = None, index: int | None = None
) -> Processes:
    """Returns the processes of this job.

    Args:
      environment: the variables of this process.
      coordinator, count, index: what the flags give.

    Raises:
      ConfigError: one of the three is missing or wrong, or contradicts another.
    """
    method, job = _job(environment)
    flags = {COORDINATOR: coordinator, COUNT: count, INDEX: index}
    values: dict[str, str] = {}
    names: dict[str, str] = {}  # of the flags and variables that the values are from
    for key, flag in flags.items():
        if flag is not None:
            names[key], values[key] = FLAGS[key], str(flag)
        elif key in environment:
            names[key], values[key] = key, environment[key]
    explicit = bool(values)
    if not explicit and method is None and (not job or importlib.util.find_spec("kubernetes")):
        return Processes("jax's own detection")
    for key, name in job.items():
        if key not in values:
            names[key], values[key] = name, environment[name]
    if missing := [key for key in flags if key not in values]:
        raise ConfigError(
            f"{_listed(names[key] for key in flags if key in names)} alone do{'es' * (len(names) == 1)} not tell how "
            f"the processes find each other; add {_listed(f'{FLAGS[key]} {VALUES[key]}' for key in missing)}, or set "
            f"{_listed(missing)}"
        )
    many, which = (_whole(names[key], values[key]) for key in (COUNT, INDEX))
    if many < 1:
        raise ConfigError(f"{names[COUNT]} must be at least 1, not {many}")
    if not 0 <= which < many:
        raise ConfigError(f"{names[INDEX]} must be 0 to {many - 1}, as {names[COUNT]} is {many}, not {which}")
    devices = {"ompi": None, "slurm": _slurm_devices(environment)}.get(method or "", ())
    if method and names[COORDINATOR] == job[COORDINATOR]:  # jax makes an address of it
        source = f"Slurm (job {environment[SLURM_JOB]} on {values[COORDINATOR]})" if method == "slurm" else "Open MPI"
        if explicit:
            source = f"{source}, {_listed(names[key] for key in (COUNT, INDEX))}"
        return Processes(source, None, many, which, method, devices)
    _check_address(names[COORDINATOR], values[COORDINATOR])
    return Processes(_listed(names[key] for key in flags), values[COORDINATOR], many, which, "deactivate", devices)


def note_of_tasks_apart(environment: Mapping[str, str]) -> str | None:
    """Returns a note for a run without --distributed in a step of several tasks, each of which trains by itself."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1":
        return None
    return (
        f"note: this step of Slurm has {tasks} tasks, and each trains a model by itself, which needs a directory of "
        "its own; with --distributed they train one model together"
    )


def connect(processes: Processes) -> None:
    """Connects this process with the others, before jax computes anything; reports on standard error if it waits.

    It ends the program where the others do not come in time, with a sentence and exit code 1: jax would abort it.

    Raises:
      ConfigError: jax detects no job, or can't start the coordinator.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # where there are only CPUs
    connected = threading.Event()
    which = "this process" if processes.index is None else f"process {processes.index} of {processes.count}"
    where = f" at {processes.coordinator}" if processes.coordinator else ""

    def watch() -> None:
        if connected.wait(WAIT_S):
            return
        print(f"{which} waits for the others{where}, found by {processes.source}", file=sys.stderr, flush=True)
        if not connected.wait(TIMEOUT_S - WAIT_S):
            print(
                f"error: {which} waited {TIMEOUT_S:g} s for the others{where}; see whether all of them have started, "
                f"with the same coordinator and number of processes, and whether this machine reaches the coordinator",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)  # the main thread waits in C++

    threading.Thread(target=watch, daemon=True).start()
    try:
        jax.distributed.initialize(
            *(processes.coordinator, processes.count, processes.index),
            local_device_ids=processes.devices,
            cluster_detection_method=processes.method,
            initialization_timeout=round(TIMEOUT_S) + 60,  # `watch` ends before
        )
    except ValueError:  # jax has detected nothing
        raise ConfigError(
            "--distributed finds no job here: start the processes with srun or mpirun, or give each of them "
            f"{_listed(f'{FLAGS[key]} {VALUES[key]}' for key in FLAGS)}, or set {_listed(FLAGS)}"
        ) from None
    except RuntimeError as error:  # of the coordinator's server, or of jax's detection
        advice = "; another program may use the port" if isinstance(error, jax.errors.JaxRuntimeError) else ""
        raise ConfigError(f"{which} can't begin{where}: {str(error).splitlines()[0]}{advice}") from None
    finally:
        connected.set()


def _job(environment: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Returns jax's name of its detection, if it has one, and the variables of a scheduler by what they are."""
    if all(name in environment for name in OPEN_MPI.values()):
        return "ompi", OPEN_MPI
    if all(name in environment for name in (*SLURM.values(), SLURM_JOB, SLURM_LOCAL)):
        in_job, in_step = environment[SLURM[COUNT]], environment.get("SLURM_STEP_NUM_TASKS")
        if in_step not in (None, in_job):
            raise ConfigError(
                f"the Slurm job has {in_job} tasks and this step {in_step}: start the processes with srun, or give "
                f"each of them {_listed(f'{FLAGS[key]} {VALUES[key]}' for key in FLAGS)}"
            )
        return "slurm", SLURM
    return None, {key: name for key, name in KUBERNETES.items() if name in environment}


def _slurm_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Returns the devices of a task of Slurm.

    jax gives a task the device of its number on the node. That is wrong where Slurm shows a task its own GPUs alone
    (--gpus-per-task), and too few where a node has more GPUs than tasks.

    Raises:
      ConfigError: a node has more tasks than GPUs.
    """
    if LOCAL_DEVICES in environment:
        return None
    tasks = _tasks_of_node(environment)
    visible = next((environment[name].split(",") for name in VISIBLE_DEVICES if environment.get(name)), None)
    if tasks == 1:
        return ()
    if visible is None or not tasks:
        return None
    requested = environment.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2]
    if len(visible) == 1 or str(len(visible)) == requested:
        return ()
    each = len(visible) // tasks
    if not each:
        raise ConfigError(
            f"a node has {tasks} tasks and {len(visible)} GPUs; request at most one task for each GPU, or set "
            f"{LOCAL_DEVICES}"
        )
    first = _whole(SLURM_LOCAL, environment[SLURM_LOCAL]) * each
    return tuple(range(first, first + each))


def _tasks_of_node(environment: Mapping[str, str]) -> int | None:
    """Returns the tasks of this step on this node, from a list such as "2(x3),1"; None where Slurm names none."""
    tasks: list[int] = []
    for number, repeated in re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")):
        tasks += [int(number)] * int(repeated or 1)
    node = environment.get("SLURM_NODEID", "")
    return tasks[int(node)] if node.isdecimal() and int(node) < len(tasks) else None


def _whole(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, not {shown(repr(value), 80)}") from None


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ConfigError(f"{name} must be HOST:PORT, such as node-0:8476, not {shown(repr(address), 80)}")


def _listed(words: Iterable[str]) -> str:
    """Returns words as "a", "a and b" or "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
