"""How the processes of a job find each other: decided from flags and variables, without a model."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments.training.processes import COORDINATOR, COUNT, INDEX, Processes, find, note_of_tasks_apart
from nemojax.errors import ConfigError
from tests.helpers.messages import whole

VARIABLES = {COORDINATOR: "n0:8476", COUNT: "4", INDEX: "3"}
SLURM = {"SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
SLURM |= {"SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NUM_TASKS": "4"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:4", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
POD = {"JOB_COMPLETION_INDEX": "3"}
THREE = f"{COORDINATOR}, {COUNT} and {INDEX}"
BY_SLURM = Processes("Slurm (job 17 on n[1-2])", None, 4, 3, "slurm", None)


@pytest.mark.parametrize(
    "environment,flags,found",
    [
        ({}, {}, Processes("jax's own detection")),
        (VARIABLES, {}, Processes(THREE, "n0:8476", 4, 3, "deactivate", ())),
        (
            VARIABLES,
            {"coordinator": "m:1", "count": 2, "index": 0},
            Processes("--coordinator, --processes and --process", "m:1", 2, 0, "deactivate", ()),
        ),
        (
            VARIABLES,
            {"index": 0},
            Processes(f"{COORDINATOR}, {COUNT} and --process", "n0:8476", 4, 0, "deactivate", ()),
        ),
        (
            {COORDINATOR: "[::1]:8476", COUNT: "4"} | POD,
            {},
            Processes(f"{COORDINATOR}, {COUNT} and JOB_COMPLETION_INDEX", "[::1]:8476", 4, 3, "deactivate", ()),
        ),
        (SLURM, {}, BY_SLURM),
        (SLURM | VARIABLES, {}, Processes(THREE, "n0:8476", 4, 3, "deactivate", None)),
        (
            SLURM | {COORDINATOR: "ib0:9"},
            {},
            Processes(f"{COORDINATOR}, SLURM_NTASKS and SLURM_PROCID", "ib0:9", 4, 3, "deactivate", None),
        ),
        (
            SLURM,
            {"index": 2},
            replace(BY_SLURM, source="Slurm (job 17 on n[1-2]), SLURM_NTASKS and --process", index=2),
        ),
        (OPEN_MPI | SLURM, {}, Processes("Open MPI", None, 4, 3, "ompi", None)),
    ],
)
def test_flags_come_before_variables_and_these_before_the_scheduler(environment, flags, found):
    assert find(environment, **flags) == found


@pytest.mark.parametrize(
    "environment,flags,message",
    [
        (
            {},
            {"count": 2},
            "--processes alone does not tell how the processes find each other; add --coordinator HOST:PORT and "
            f"--process I, or set {COORDINATOR} and {INDEX}",
        ),
        (
            POD | {COUNT: "4"},
            {},
            f"{COUNT} and JOB_COMPLETION_INDEX alone do not tell how the processes find each other; add --coordinator "
            f"HOST:PORT, or set {COORDINATOR}",
        ),
        (VARIABLES | {COUNT: "four"}, {}, f"{COUNT} must be a whole number, not 'four'"),
        (VARIABLES, {"count": 0}, "--processes must be at least 1, not 0"),
        (VARIABLES | {COUNT: "3"}, {}, f"{INDEX} must be 0 to 2, as {COUNT} is 3, not 3"),
        (SLURM, {"count": 3}, "SLURM_PROCID must be 0 to 2, as --processes is 3, not 3"),
        (VARIABLES, {"index": -1}, f"--process must be 0 to 3, as {COUNT} is 4, not -1"),
        (VARIABLES | {COORDINATOR: "n0"}, {}, f"{COORDINATOR} must be HOST:PORT, such as node-0:8476, not 'n0'"),
        (VARIABLES, {"coordinator": "n0:0"}, "--coordinator must be HOST:PORT, such as node-0:8476, not 'n0:0'"),
        (
            VARIABLES,
            {"coordinator": "http://n0:80"},
            "--coordinator must be HOST:PORT, such as node-0:8476, not 'http://n0:80'",
        ),
        (
            VARIABLES,
            {"coordinator": f"n0:{'1' * 5000}"},
            f"--coordinator must be HOST:PORT, such as node-0:8476, not 'n0:{'1' * 36} ... {'1' * 39}'",
        ),
        (
            SLURM | {"SLURM_LOCALID": "x", "CUDA_VISIBLE_DEVICES": "0,1"},
            {},
            "SLURM_LOCALID must be a whole number, not 'x'",
        ),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
            {},
            "the Slurm job has 4 tasks and this step 1: start the processes with srun, or give each of them "
            "--coordinator HOST:PORT, --processes N and --process I",
        ),
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_NODEID": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            {},
            "a node has 8 tasks and 4 GPUs; request at most one task for each GPU, or set JAX_LOCAL_DEVICE_IDS",
        ),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(environment, flags, message):
    with pytest.raises(ConfigError, match=whole(message)):
        find(environment, **flags)


def test_a_pod_without_a_coordinator_is_an_error_unless_jax_can_ask_kubernetes(monkeypatch):
    with pytest.raises(ConfigError, match=f"^JOB_COMPLETION_INDEX alone does not .* set {COORDINATOR} and {COUNT}$"):
        find(POD)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert find(POD) == Processes("jax's own detection")


@pytest.mark.parametrize(
    "variables,devices",
    [
        ({}, None),  # the node's GPU of this number, or none
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, ()),  # one task has all devices of its node
        ({"CUDA_VISIBLE_DEVICES": "1"}, ()),  # --gpus-per-task=1
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_PER_TASK": "a100:2"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),  # --gpus-per-node=2
        ({"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "JAX_LOCAL_DEVICE_IDS": "3"}, None),
    ],
)
def test_the_devices_of_a_task_of_slurm(variables, devices):
    assert find(SLURM | variables) == replace(BY_SLURM, devices=devices)


def test_tasks_that_train_apart_are_noted():
    assert note_of_tasks_apart({}) is None and note_of_tasks_apart(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert note_of_tasks_apart(SLURM) == (
        "note: this step of Slurm has 4 tasks, and each trains a model by itself, which needs a directory of its own; "
        "with --distributed they train one model together"
    )


WAITING = """
from experiments.training import processes
processes.WAIT_S, processes.TIMEOUT_S = 0.1, 0.5
processes.connect(processes.find({}, "127.0.0.1:9", 2, 1))
"""


def test_a_process_that_waits_in_vain_reports_it_and_ends():
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", WAITING], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "process 1 of 2 waits for the others at 127.0.0.1:9, found by --coordinator, --processes and --process",
        "error: process 1 of 2 waited 0.5 s for the others at 127.0.0.1:9; see whether all of them have started, with "
        "the same coordinator and number of processes, and whether this machine reaches the coordinator",
    ]
