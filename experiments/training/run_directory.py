"""What a training run keeps on disk.

settings.json      the settings it goes by
tokenizer.model    the SentencePiece model
origin.json        where its first weights came from
metrics.jsonl      one line for each step, evaluation and event: the truth
checkpoints/N/     all state after N steps: the last few, and the best
compiled/          compiled steps, so that a resumed run begins at once
model/             at the end: the best weights as a native checkpoint
"""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from nemojax.training.step import TrainState

SETTINGS, TOKENIZER, ORIGIN, METRICS = "settings.json", "tokenizer.model", "origin.json", "metrics.jsonl"


# what orbax warns of at each checkpoint without metrics, and of a directory that it is told not to write to
NOISE = ("Requested `tracked_metric`", "CheckpointManagerOptions.read_only", "Given directory is read only")
logging.getLogger("absl").addFilter(lambda record: not str(record.msg).startswith(NOISE))


class RunError(RuntimeError):
    """A run that can't begin, go on or be kept; the message says why and what to do."""


class Checkpoints:
    """All state of a run, at some steps. Writing goes on beside training; a checkpoint is whole or not there.

    Args:
      directory: `checkpoints/` of a run.
      keep: how many of the last are kept; the one with the lowest dev WER is kept beside them. None to read
        alone, in this process, beside a run that may be writing.
    """

    def __init__(self, directory: Path, keep: int | None):
        self.directory, wer = directory, lambda metrics: metrics["wer"]
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
                best_fn=wer,  # or metrics are not kept
                best_mode="min",
                preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
                cleanup_tmp_directories=jax.process_count() == 1,  # what a killed run left half-written
            )
        try:
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except OSError as error:
            raise RunError(f"{directory} can't be written: {error.strerror}") from None

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    @property
    def last(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The one with the lowest dev WER; None where none was evaluated."""
        scored = {step: self._manager.metrics(step) for step in self.steps}
        wers = {step: metrics["wer"] for step, metrics in scored.items() if metrics}
        return min(wers, key=lambda step: (wers[step], -step)) if wers else None

    def save(self, step: int, state: TrainState, wer: float | None = None) -> None:
        """Begins to write; the arrays may be donated once this returns.

        Raises:
          RunError: this one, or the one before it, could not be written.
        """
        if step in self.steps:
            return
        metrics = None if wer is None else {"wer": wer}
        self._say(lambda: self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True))

    def wait(self) -> None:
        """Returns when all is written. Raises RunError where it could not be."""
        self._say(self._manager.wait_until_finished)

    def restore(self, like: TrainState, step: int) -> TrainState:
        """The state of a step, as `like` (of arrays or `jax.ShapeDtypeStruct`s) is laid out.

        Raises:
          RunError: it can't be read.
        """
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # orbax and tensorstore have no common type for a damaged file
            raise RunError(
                f"the checkpoint {self.directory / str(step)} can't be read: {_first_line(error)}; remove it to go "
                "on from the one before"
            ) from None

    def close(self) -> None:
        self._manager.close()

    def _say(self, write) -> None:
        try:
            write()
        except Exception as error:  # an OSError, or what tensorstore makes of one
            whole = [step for step in self.steps if (self.directory / str(step)).is_dir()]
            last = f"that of step {whole[-1]} is whole" if whole else "there is none yet"
            raise RunError(
                f"a checkpoint can't be written to {self.directory}: {_first_line(error)}; the last one, {last}. "
                "Free some space and run the same command again"
            ) from None


def saved_steps(directory: Path) -> list[int]:
    """The steps whose checkpoints are whole, without opening any."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


class Metrics:
    """metrics.jsonl, a row for each event; with `step`, the steps done by then.

    Args:
      step: of the state that the run goes on from; rows of later steps, and one that was cut off, are dropped.
      tensorboard: write what is numeric for TensorBoard too.
    """

    def __init__(self, path: Path, step: int, tensorboard: bool = False):
        self.path = path
        rows = [row for row in read_metrics(path) if row["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(partial, path)
        self._file = path.open("a", buffering=1)
        self._writer = _summary_writer(path.parent / "tensorboard", step) if tensorboard else None

    def write(self, kind: str, step: int, **values: Any) -> None:
        # a loss may be NaN, which JSON does not know
        known = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **known}, allow_nan=False) + "\n")
        except OSError as error:
            raise RunError(
                f"{self.path} can't be written: {error.strerror}; free some space and run the same command again"
            ) from None
        if self._writer is not None:
            names = [str(values[key]) for key in ("manifest", "lookahead") if kind == "dev"]
            for key, value in values.items():
                if isinstance(value, int | float) and key not in ("manifest", "lookahead"):
                    self._writer.add_scalar("/".join([kind, *names, key]), value, step)

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl that is there; a last line that a kill cut off is none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _summary_writer(directory: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise RunError("TensorBoard's format needs a package: install nemojax[tensorboard]") from None
    return SummaryWriter(str(directory), purge_step=step + 1)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2, default=str) + "\n")
    os.replace(partial, path)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
