"""The directory of a training run:

settings.json      its settings
tokenizer.model    the SentencePiece model
origin.json        where its first weights came from
metrics.jsonl      one line for each step, evaluation and event
checkpoints/N/     the whole state after N steps, for the last steps and the best
compiled/          compiled steps, so that a resumed run starts fast, unless $JAX_COMPILATION_CACHE_DIR has them
model/             written at the end: the best weights as a native checkpoint
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from nemojax.errors import NemojaxError
from nemojax.training.state import TrainState
from nemojax.write_errors import print_no_tracebacks, reason

SETTINGS, TOKENIZER, ORIGIN, METRICS = "settings.json", "tokenizer.model", "origin.json", "metrics.jsonl"

# orbax's warnings about a checkpoint without metrics, and about a directory opened for reading
NOISE = ("Requested `tracked_metric`", "CheckpointManagerOptions.read_only", "Given directory is read only")
logging.getLogger("absl").addFilter(lambda record: not str(record.msg).startswith(NOISE))


class FormerTrainState(NamedTuple):
    """`TrainState` with the names of its fields in checkpoints that were saved before one was renamed."""

    step: Any
    parameters: Any
    average: Any
    optimiser: Any
    skipped: Any
    skipped_in_a_row: Any
    norms: Any
    seed: Any


class RunError(NemojaxError, RuntimeError):
    """Reports a run that can't be started, resumed or saved; the message says why and what to do."""


class Checkpoints:
    """A run's checkpoints, each with the whole state after a step. Saving overlaps with training, and is atomic.

    Args:
      directory: `checkpoints/` of a run.
      keep: number of latest checkpoints to keep, beside the one with the lowest dev WER. None opens the directory for
        reading, in this process alone, while another may be writing.
    """

    def __init__(self, directory: Path, keep: int | None):
        self.directory, wer = directory, lambda metrics: metrics["wer"]
        print_no_tracebacks()
        if keep is None:
            here = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}, barrier_sync_key_prefix="reader"
            )
            options = ocp.CheckpointManagerOptions(
                read_only=True, create=False, best_fn=wer, best_mode="min", multiprocessing_options=alone
            )
        else:
            best = BestN(get_metric_fn=wer, reverse=True, n=1, keep_checkpoints_without_metrics=False)
            options = ocp.CheckpointManagerOptions(
                best_fn=wer,  # without it orbax does not keep metrics
                best_mode="min",
                preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
                cleanup_tmp_directories=jax.process_count() == 1,  # partial checkpoints of a killed run
            )
        try:
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except OSError as error:
            raise RunError(f"{directory} can't be written: {error.strerror}") from None

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def last(self) -> int | None:
        """The last step that has a checkpoint; None without any."""
        last: int | None = self._manager.latest_step()
        return last

    @property
    def best(self) -> int | None:
        """The step with the lowest dev WER; None where no checkpoint was evaluated."""
        scored = {step: self._manager.metrics(step) for step in self.steps}
        wers = {step: metrics["wer"] for step, metrics in scored.items() if metrics}
        return min(wers, key=lambda step: (wers[step], -step)) if wers else None

    def save(self, step: int, state: TrainState, wer: float | None = None) -> None:
        """Starts writing a checkpoint. The arrays may be donated when this returns.

        Raises:
          RunError: this checkpoint, or the one before it, can't be written.
        """
        if step in self.steps:
            return
        metrics = None if wer is None else {"wer": wer}
        self._write(lambda: self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True))

    def wait(self) -> None:
        """Waits until every checkpoint is written. Raises RunError where one can't be."""
        self._write(self._manager.wait_until_finished)

    def restore(self, like: TrainState, step: int) -> TrainState:
        """Returns the state of a step, with the shapes and placement of `like` (arrays or `jax.ShapeDtypeStruct`s).

        Raises:
          RunError: the checkpoint can't be read.
        """
        try:
            former = self._has_former_names(step)
            item = FormerTrainState(*like) if former else like
            return TrainState(*self._manager.restore(step, args=ocp.args.StandardRestore(item)))
        except Exception as error:  # orbax and tensorstore have no common type for a damaged file
            raise RunError(
                f"the checkpoint {self.directory / str(step)} can't be read: {reason(error)}; remove it to resume "
                "from the one before"
            ) from None

    def _has_former_names(self, step: int) -> bool:
        """Returns whether a checkpoint was saved with the field names of `FormerTrainState`."""
        (metadata,) = (self.directory / str(step)).glob("*/_METADATA")
        return "'optimiser'" in metadata.read_text()

    def close(self) -> None:
        """Waits for checkpoints being written, and closes the directory."""
        self._manager.close()

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # an OSError, or tensorstore's error for one
            whole = [step for step in self.steps if (self.directory / str(step)).is_dir()]
            last = f"that of step {whole[-1]} is whole" if whole else "there is none yet"
            raise RunError(
                f"a checkpoint can't be written to {self.directory}: {reason(error)}; the last one, {last}. "
                "Free some space and run the same command again"
            ) from None


def saved_steps(directory: Path) -> list[int]:
    """Returns the steps that have a checkpoint, without opening any."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


class MetricsLog:
    """The file metrics.jsonl: one row for each event, with the number of steps completed before it.

    Args:
      step: step of the state that the run starts or resumes from. Rows of later steps, and an incomplete last row, are
        removed.
      trackers: get the numbers too; see `trackers.py`.
    """

    def __init__(self, path: Path, step: int, trackers: Sequence[Any] = ()):
        self.path = path
        rows = [row for row in read_metrics(path) if row["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(partial, path)
        self._file = path.open("a", buffering=1)
        self._trackers = trackers

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends a row; numbers that are not finite become null, because JSON has none. Raises RunError."""
        known = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **known}, allow_nan=False) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.path} can't be written: {error.strerror}; free some space and run the same command again"
            ) from None
        names = [str(values[key]) for key in ("manifest", "lookahead") if kind == "dev"]
        numbers = {
            "/".join([kind, *names, key]): value
            for key, value in values.items()
            if isinstance(value, int | float) and key not in ("manifest", "lookahead")
        }
        for tracker in self._trackers if numbers else ():
            tracker.add(numbers, step)

    def close(self) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl, without an incomplete last line; none where there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a file of JSON, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2, default=str) + "\n")
    os.replace(partial, path)
