"""The files of experiments/slurm, submitted to a Slurm of our own, with a task on each of two nodes."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from nemojax.recognition.bulk import PARTS, transcribe_manifest
from nemojax.recognition.recognizer import load
from tests.data.corpora import write_speech
from tests.experiments.training.runs import TEXTS, losses
from tests.helpers import slurm
from tests.helpers.slurm import Cluster
from tests.recognition.conftest import spoken  # noqa: F401  a fixture
from tests.recognition.jobs import merged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurm.unavailable_reason() is not None, reason=slurm.unavailable_reason() or ""),
]
ROOT = Path(__file__).parents[2]
STEPS = 16


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("slurm")
    with ExitStack() as stack:
        try:
            running = stack.enter_context(slurm.cluster(directory))
        except slurm.CannotStart as error:
            pytest.skip(f"a Slurm of our own does not start here: {error}")
        running.environment |= {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        yield running


def submit(cluster: Cluster, name: str, *arguments: object) -> str:
    script = ROOT / "experiments/slurm" / f"{name}.sbatch"
    return cluster.submit("--nodes=2", "--ntasks-per-node=1", f"--chdir={ROOT}", str(script), *map(str, arguments))


def tasks(*words: object) -> list[int]:
    """Processes whose command line has all of the words, but for Slurm's own."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if "python" in os.path.basename(command[0]).decode() and all(str(word).encode() in command for word in words):
            found.append(int(directory.name))
    return found


def until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)


@pytest.fixture
def train(cluster, tmp_path):
    """Submits the training of a run, and returns the job's number."""
    corpus = write_speech(tmp_path, "train", TEXTS * 5)
    same = ["--plan.rows-multiple", 2, "--model.joint.dropout", 0, "--model.vocabulary", 40, "--workers", 0]

    def train(run: Path, steps: int = STEPS) -> str:
        return submit(cluster, "train", "smoke", run, "--train", corpus, "--steps", steps, "--save-every", 5, *same)

    return train


def test_training_that_is_preempted_and_killed_ends_as_if_it_were_not(cluster, train, tmp_path):
    job = train(tmp_path / "calm")
    about = cluster.wait(job, "COMPLETED", "FAILED")
    assert about["JobState"] == "COMPLETED", cluster.output(job)
    calm = losses(tmp_path / "calm")
    assert [step for step, _ in calm] == list(range(1, STEPS + 1))

    run = tmp_path / "run"
    job = train(run)
    until(lambda: len(losses(run)) >= 3)
    other = cluster.submit("--partition=high", "--exclusive", "--wrap=sleep 1")
    cluster.wait(other, "COMPLETED")
    assert "which is saved" in cluster.output(job)
    saved = len(losses(run))
    assert 3 <= saved < STEPS
    until(lambda: cluster.wait(job, "RUNNING", "COMPLETED") and len(losses(run)) > saved)
    os.kill(tasks("experiments", "train", run)[0], signal.SIGKILL)
    about = cluster.wait(job, "COMPLETED", "FAILED")
    assert about["JobState"] == "COMPLETED", cluster.output(job)
    assert int(about["Restarts"]) == 2
    assert losses(run) == calm
    assert not tasks("experiments", "train", run)


def test_training_one_of_whose_tasks_reports_an_error_is_not_queued_again(cluster, tmp_path, monkeypatch):
    """Slurm kills the other task, and its exit code is that of a job to queue again."""
    python = tmp_path / "python"
    fails = 'echo "error: wrong" >&2; sleep 1; exit 2'  # a busy srun loses what was printed just before an exit
    python.write_text(f'#!/bin/sh\n[ "$SLURM_PROCID" = 1 ] && {{ {fails}; }}\nexec sleep 100\n')
    python.chmod(0o755)
    monkeypatch.setitem(cluster.environment, "PYTHON", str(python))
    job = submit(cluster, "train")
    cluster.wait(job, "RUNNING", "FAILED")
    about = cluster.wait(job, "COMPLETED", "FAILED", "PENDING")
    assert (about["JobState"], about["Restarts"]) == ("FAILED", "0"), cluster.output(job)
    assert "error: wrong" in cluster.output(job)


def test_training_that_is_cancelled_stays_so(cluster, train, tmp_path):
    run = tmp_path / "run"
    job = train(run, steps=10_000)
    until(lambda: len(losses(run)) >= 1)
    cluster.run("scancel", job)
    about = cluster.wait(job, "CANCELLED", "PENDING")
    assert (about["JobState"], about["Restarts"]) == ("CANCELLED", "0"), cluster.output(job)
    assert "which is saved" in cluster.output(job)
    assert not tasks("experiments", "train", run)


@pytest.fixture(scope="module")
def undisturbed(checkpoint_directory, spoken, tmp_path_factory):  # noqa: F811
    """The merged files of one process that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    transcribe_manifest(load(checkpoint_directory), spoken, output, 6, batch_size=4)
    return merged(output)


def test_a_manifest_in_two_shards_one_of_which_is_killed(
    cluster,
    checkpoint_directory,
    spoken,  # noqa: F811
    undisturbed,
    tmp_path,
):
    out = tmp_path / "out"
    options = ("--model", checkpoint_directory, "--lookahead", 6, "--batch-size", 1)
    job = submit(cluster, "transcribe", spoken, out, *options)
    done = lambda: sum(len(part.read_text().splitlines()) for part in (out / PARTS).glob("*.jsonl"))
    until(lambda: done() >= 2)
    os.kill(tasks("nemojax.cli", out)[0], signal.SIGKILL)
    about = cluster.wait(job, "COMPLETED", "FAILED")
    assert int(about["Restarts"]) == 1, cluster.output(job)
    assert about["ExitCode"] == "1:0"  # there are recordings that fail
    assert sorted(path.name for path in (out / PARTS).glob("*.jsonl")) == ["00000.jsonl", "00001.jsonl"]
    assert merged(out) == undisturbed
