"""The training program: its errors, and runs as processes of their own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.training import train
from experiments.training.run_directory import Checkpoints, read_metrics
from nemojax import checkpoint
from tests.experiments.training.runs import losses

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["smoke", "{run}"], "name the manifests to train on"),
        (["smoke", "{run}", "--train", "{run}/none.jsonl"], "none.jsonl"),
        (["smoke", "{run}", "--train", "{train}", "--tokenizer", "{run}/no.model"], "no.model can't be read"),
        (["smoke", "{run}", "--train", "{train}", "--init", "{run}/no"], "no is not a directory"),
        (["smoke", "{train}", "--train", "{train}"], "can't be written"),
        (["smoke", "{run}", "--train", "{train}", "--process", "0"], "--process alone does not tell"),
        (["smoke", "{run}", "--train", "{train}", "--process", "1"], "--process alone does not tell"),
    ],
)
def test_errors_are_sentences(tmp_path, speech, capsys, arguments, message):
    arguments = [a.format(run=tmp_path / "run", train=speech[0]) for a in arguments]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--training.warmup-steps=-1"], "--training.warmup-steps must be at least 0, not -1"),
        (
            ["--training.schedule", "cosine", "--training.warmup-steps", "30", "--steps", "25"],
            "the warm-up of 30 steps must end before the schedule does, at step 25; set a shorter "
            "--training.warmup-steps",
        ),
        (
            ["--training.spec-augment.time-width", "2"],
            "--training.spec-augment.time-width must be between 0 and 1, not 2.0",
        ),
    ],
)
def test_a_wrong_setting_is_named_by_its_flag(tmp_path, capsys, arguments, message):
    assert train.main(["smoke", str(tmp_path), "--train", "x", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


# As programs of their own.


def program(
    run: Path, speech, *more: str, steps: int = 24, environment: dict[str, str] | None = None
) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments", "train", "smoke", str(run), "--train", str(speech[0]), *more]
    command += ["--model.vocabulary", "40", "--steps", str(steps), "--save-every", "5"]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    _, errors = process.communicate(timeout=3600)
    assert process.returncode == code, errors[-3000:]
    return errors


def finish_all(processes: list[subprocess.Popen]) -> None:
    """Waits for the processes of a job, which must all end well; none is left if one does not."""
    try:
        for process in processes:
            finish(process)
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path, speech):
    """Kills a run while it compiles, trains, writes or ends; its workers must end too."""
    finish(program(tmp_path / "calm", speech))
    calm, rng, kills = losses(tmp_path / "calm"), np.random.default_rng(), 0
    run = tmp_path / "killed"
    while kills < 6:
        process = program(run, speech, "--workers", "1")
        rows, until = len(losses(run)) + int(rng.integers(0, 8)), time.monotonic() + 300
        while len(losses(run)) < rows and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.5)))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    finish(program(run, speech, "--workers", "1"))
    assert kills and losses(run) == calm
    same = [checkpoint.load(directory / "model")[0] for directory in (tmp_path / "calm", run)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *same))


@pytest.mark.slow
def test_the_same_settings_and_seed_give_the_same_numbers(tmp_path, speech):
    """Bit for bit, on the same hardware, compiled again, with and without worker processes."""
    timing, rows, models = {"waited_share", "frames_per_s", "seconds"}, [], []
    for name, more in (("one", ()), ("two", ("--workers", "1"))):
        finish(program(tmp_path / name, speech, "--dev", str(speech[1]), *more))
        metrics = read_metrics(tmp_path / name / "metrics.jsonl")
        rows.append([{key: value for key, value in row.items() if key not in timing} for row in metrics])
        models.append(jax.tree.leaves(checkpoint.load(tmp_path / name / "model")[0]))
    steps = [row for row in rows[0] if row["kind"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, 25)) and len(rows[0]) == 24 + 8
    assert len({row["lookahead"] for row in steps}) > 1  # something was drawn at random
    assert rows[1] == rows[0]
    assert all(one.dtype == np.float32 and np.array_equal(one, two) for one, two in zip(*models, strict=True))


@pytest.mark.slow
def test_sigterm_to_the_program(tmp_path, speech):
    run = tmp_path / "run"
    process = program(run, speech, steps=300)
    while len(losses(run)) < 7:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    errors = finish(process, 143)
    step = Checkpoints(run / "checkpoints", None).last
    assert f"stopped after step {step}, which is saved" in errors
    finish(program(run, speech, steps=step + 5))
    assert [step for step, _ in losses(run)] == list(range(1, step + 6))


@pytest.mark.slow
def test_two_processes_that_flags_and_variables_name(tmp_path, speech, capfd):
    """As an indexed Job of Kubernetes would start them: each knows its index, and all the coordinator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": coordinator, "JAX_PLATFORMS": "cpu"}
    processes = [
        program(
            *(tmp_path / "run", speech, "--plan.rows-multiple", "2", "--processes", "2"),
            steps=2,
            environment={**common, "JOB_COMPLETION_INDEX": str(index)},
        )
        for index in range(2)
    ]
    finish_all(processes)
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2]
    lines = capfd.readouterr().out.splitlines()
    opening = "processes: 2, found by JAX_COORDINATOR_ADDRESS, --processes and JOB_COMPLETION_INDEX"
    assert lines.count(opening) == 1 and any(
        line.startswith("devices: ") and "of 2 processes" in line for line in lines
    )
    assert json.loads((tmp_path / "run/settings.json").read_text())["process"] is None


@pytest.mark.slow
def test_a_process_that_fails_ends_alone_and_the_others_report_it(tmp_path, speech):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--processes", "2"]
    cpu = {"JAX_PLATFORMS": "cpu"}
    well = program(tmp_path / "run", speech, *job, "--process", "0", environment=cpu)
    failing = program(tmp_path / "run", (tmp_path / "none.jsonl",), *job, "--process", "1", environment=cpu)
    try:
        assert "none.jsonl: the manifest can't be read" in finish(failing, 2)
        assert well.poll() is None  # the other does not hold it up
        errors = finish(well, train.LOST)
    finally:
        for process in (well, failing):
            process.kill()
    assert "Traceback" not in errors and "error: process 0 of 2 lost another one, whose own message says why" in errors


@pytest.mark.slow
def test_two_processes_of_a_job_train_as_one(tmp_path, speech):
    """As Slurm would start them: they find each other by its variables, and each reads its share."""
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm |= {"SLURM_STEP_NUM_NODES": "1", "JAX_PLATFORMS": "cpu"}
    same = ["--plan.rows-multiple", "2", "--model.joint.dropout", "0", "--dev", str(speech[1])]
    processes = [
        program(
            tmp_path / "two",
            speech,
            *same,
            "--distributed",
            environment={**slurm, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
        )
        for i in range(2)
    ]
    finish_all(processes)
    finish(program(tmp_path / "one", speech, *same))
    one, two = (np.array(losses(tmp_path / name)) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=2e-2)
    np.testing.assert_allclose(two[:3], one[:3], rtol=1e-5)
    kinds = [row["kind"] for row in map(json.loads, (tmp_path / "two/metrics.jsonl").read_text().splitlines())]
    assert kinds.count("dev") == 8  # at step 20 and at the end, by one of them
