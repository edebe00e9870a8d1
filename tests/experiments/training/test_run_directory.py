"""The files of a run: checkpoints, metrics, and those that were written before names changed."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.training.run_directory import (
    Checkpoints,
    FormerTrainState,
    MetricsLog,
    RunError,
    best_evaluation,
    read_metrics,
)
from nemojax.training.state import TrainState


def state_of(value: float) -> TrainState:
    return TrainState(
        step=jnp.int32(value),
        parameters={"a.kernel": jnp.full((2, 3), value), "b": jnp.full(4, -value)},
        average={},
        optimizer=({"mu": {"b": jnp.full(4, 2 * value)}}, jnp.int32(7)),
        skipped=jnp.int32(1),
        skipped_in_a_row=jnp.int32(0),
        norms=jnp.full(3, jnp.inf),
        seed=jnp.uint32(5),
    )


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints", 2)
    yield opened
    opened.close()


def test_a_state_comes_back_as_it_was(checkpoints):
    for step in (4, 8):
        checkpoints.save(step, state_of(step))
    checkpoints.wait()
    for step in (4, 8):
        restored = checkpoints.restore(jax.eval_shape(lambda: state_of(0)), step)
        assert isinstance(restored, TrainState)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), restored, state_of(step))
    assert checkpoints.last == 8 and checkpoints.best is None


def test_the_last_and_the_best_are_kept(checkpoints):
    for step, wer in ((1, None), (2, 0.5), (3, 0.2), (4, 0.2), (5, 0.9), (6, None), (7, None)):
        checkpoints.save(step, state_of(step), wer)
        checkpoints.wait()
    assert checkpoints.steps == [4, 6, 7] and checkpoints.best == 4  # of equal ones, the later


def test_the_best_has_the_lowest_rate(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 5)
    for step, wer in ((1, 0.5), (2, 0.2), (3, 0.2), (4, 0.9), (5, None)):
        checkpoints.save(step, state_of(step), wer)
    checkpoints.wait()
    assert checkpoints.steps == [1, 2, 3, 4, 5] and checkpoints.best == 3  # the later of two equal ones
    checkpoints.close()


def test_a_checkpoint_with_the_former_name_of_a_field(tmp_path):
    """Runs that were started before `optimiser` became `optimizer` are resumed."""
    directory = tmp_path / "checkpoints"
    with ocp.CheckpointManager(directory) as manager:
        manager.save(3, args=ocp.args.StandardSave(FormerTrainState(*state_of(3))))
    assert any("optimiser" in path.read_text() for path in directory.glob("3/*/_METADATA"))
    checkpoints = Checkpoints(directory, None)
    restored = checkpoints.restore(jax.eval_shape(lambda: state_of(0)), 3)
    assert isinstance(restored, TrainState)
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(3))


def test_a_damaged_checkpoint_is_named(checkpoints, tmp_path):
    checkpoints.save(1, state_of(1))
    checkpoints.wait()
    for path in (tmp_path / "checkpoints" / "1").glob("*/_METADATA"):
        path.unlink()
    with pytest.raises(RunError, match=r"the checkpoint .*checkpoints/1 can't be read: .*; remove it to resume from"):
        checkpoints.restore(jax.eval_shape(lambda: state_of(0)), 1)


def test_metrics_that_can_not_be_written_or_are_not_numbers(tmp_path):
    metrics = MetricsLog(tmp_path / "metrics.jsonl", 0)
    metrics.write("train", 1, loss=float("nan"), loss_ctc=math.inf, skipped=True)
    row = {"kind": "train", "step": 1, "loss": None, "loss_ctc": None, "skipped": True}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == row
    metrics._file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115
    with pytest.raises(RunError, match=r"metrics.jsonl can't be written: No space left on device; free some space"):
        metrics.write("train", 2, loss=1.0)


def test_a_resumed_run_drops_rows_after_its_checkpoint_and_an_incomplete_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in range(1, 6):
        log.write("train", step, loss=1.0)
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5]
    log = MetricsLog(path, 3)
    log.write("train", 4, loss=2.0)
    log.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_the_best_evaluation_and_those_after_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert best_evaluation(path) == (0, 0)
    rows = [(4, 0.5), (4, 0.3), (8, 0.35), (8, 0.35), (12, 0.9), (12, None), (16, 0.35), (16, 0.37)]
    lines = [{"kind": "dev", "step": step, "wer": wer} for step, wer in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "train", "step": 17}]))
    assert best_evaluation(path) == (8, 2)  # means: 0.4, 0.35, 0.9, 0.36
