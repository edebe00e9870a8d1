"""The training loop: steps, evaluations, checkpoints, and how a run ends: finished, stopped or failed.

A run is a function of its settings. Its state is a checkpoint, and the step's number is its position in the data. If it
is killed, the same command resumes from the last checkpoint and computes the same numbers.
"""

import dataclasses
import json
import math
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from experiments.harness.output import labels
from experiments.training.dev_scores import dev_entries, dev_rows
from experiments.training.opening import opening
from experiments.training.presets import FIXED, Experiment, changes, current_names
from experiments.training.progress import ignore, shown
from experiments.training.run_directory import (
    METRICS,
    ORIGIN,
    SETTINGS,
    TOKENIZER,
    Checkpoints,
    MetricsLog,
    RunError,
    best_evaluation,
    saved_steps,
    write_json,
)
from experiments.training.start import Start, plan_of, start
from experiments.training.trackers import Tracker, open_trackers
from nemojax import compilation
from nemojax.config import ModelConfig
from nemojax.data.pipeline import Pipeline
from nemojax.model.parameters import abstract_model
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.tokenizer import Tokenizer
from nemojax.training import sharding
from nemojax.training.forward import Batch
from nemojax.training.losses import Loss
from nemojax.training.state import TrainState, init, model_of
from nemojax.training.step import StepMetrics, train_step_jit

COMPILED = "compiled"  # subdirectory of the run for compiled steps
FINAL_MODEL = "model"


class Stopped(Exception):
    """Reports that the run was asked to stop, after its state was saved."""


class Run:
    """A training run in its directory, new or resumed. `train` runs it to its last step.

    Args:
      log: called with each message for the user.
      losses: what to minimize; None for the recipe's own, `losses.standard_losses(experiment.training)`. A run is
        resumed with losses of the same names and weights.

    Raises:
      RunError: the run can't be started or resumed; says why.
    """

    def __init__(
        self,
        experiment: Experiment,
        log: Callable[[str], None] = tqdm.write,
        losses: tuple[Loss, ...] | None = None,
    ):
        self.experiment, self.log, self._losses = experiment, log, losses
        self.chief = jax.process_index() == 0  # the process that writes metrics and evaluates
        directory = experiment.run
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory} can't be written: {error.strerror}") from None
        started = start(experiment) if not (directory / SETTINGS).exists() else self._started()
        self.config: ModelConfig = started.model.config
        self.tokenizer = Tokenizer(started.tokenizer)
        self.plan = plan_of(experiment, self.tokenizer, self.config, log)
        self.changed = self._keep_settings(started)
        compilation.keep(directory / COMPILED)
        self.checkpoints = Checkpoints(directory / "checkpoints", experiment.keep)
        self._prepare_step(started)
        self.dev = {
            label: dev_entries(path, experiment.dev_utterances) for label, path in labels(experiment.dev).items()
        }
        self._metrics: MetricsLog | None = None  # open during `train`
        self._reported: set[str] = set()
        self._stop_requested = False
        self._skipped_in_a_row = int(self.state.skipped_in_a_row)

    def _started(self) -> Start:
        """Returns what a run to resume started with. Its model is abstract: the checkpoint holds the weights."""
        directory, experiment = self.experiment.run, self.experiment
        try:
            tokenizer, origin = (directory / TOKENIZER).read_bytes(), json.loads((directory / ORIGIN).read_text())
            config = ModelConfig.from_json(json.dumps(json.loads((directory / SETTINGS).read_text())["started"]))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{directory} does not hold a run that can be resumed: {error}") from None
        if not saved_steps(directory / "checkpoints"):
            return start(dataclasses.replace(experiment, tokenizer=directory / TOKENIZER))
        return Start(abstract_model(config), tokenizer, origin)

    def _keep_settings(self, started: Start) -> dict[str, Any]:
        """Writes the settings of a new run, or compares them with those of the run to resume; returns what changed."""
        path = self.experiment.run / SETTINGS
        now = json.loads(self.experiment.to_json()) | {
            "started": json.loads(self.config.to_json()),
            "data": self.plan.fingerprint,
        }
        if self._losses is not None:
            now["losses"] = {loss.name: loss.weight for loss in self._losses}
        if path.exists():
            different = changes(current_names(json.loads(path.read_text())), now)
            fixed = {name: change for name, change in different.items() if name.startswith(FIXED)}
            if fixed or (different and not self.experiment.accept_changes):
                shown = fixed or different
                listed = "; ".join(f"{name}: {old!r} then, {new!r} now" for name, (old, new) in shown.items())
                others = "or another directory" if fixed else "another directory, or --accept-changes"
                raise RunError(f"{self.experiment.run} was started with other settings ({listed}); use those, {others}")
        else:
            different = {}
        if self.chief:
            try:
                if not path.exists():
                    (self.experiment.run / TOKENIZER).write_bytes(started.tokenizer)
                    write_json(self.experiment.run / ORIGIN, started.origin)
                write_json(path, now)  # last: where this file exists, the others do
            except OSError as error:
                raise RunError(f"{self.experiment.run} can't be written: {error.strerror}") from None
        return different

    def _prepare_step(self, started: Start) -> None:
        """Prepares the first state, new or restored, and the step to compile, on one device or on a mesh."""
        recipe, config, last = self.experiment.training, self.config, self.checkpoints.last
        first_state = partial(init, recipe=recipe)
        like = jax.eval_shape(first_state, started.model)
        if jax.device_count() == 1:
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            shardings = jax.tree.map(lambda _: here, like)
            self._step: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
            self._step = partial(train_step_jit, config=config, recipe=recipe, losses=self._losses)
            self._mesh = None
        else:
            self._mesh = sharding.make_mesh(self.experiment.mesh_data, self.experiment.mesh_fsdp)
            shardings = sharding.state_shardings(like, self._mesh)
            self._step = sharding.sharded_step(self._mesh, shardings, config, recipe, losses=self._losses)
        if last is None:
            state = first_state(started.model)
            self.state = state if jax.device_count() == 1 else sharding.place_state(state, shardings)
        else:
            placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)
            self.state = self.checkpoints.restore(placed, last)
        self.step = int(self.state.step)

    def train(self) -> None:
        """Trains to the last step, and exports the best weights.

        Raises:
          Stopped: on SIGTERM or SIGINT, after the state was saved.
          RunError: too many steps in a row were skipped, or a checkpoint can't be written.
          DataError: see `Pipeline`.
        """
        experiment = self.experiment
        with ExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGINT):
                stack.callback(signal.signal, number, signal.signal(number, self._request_stop))
            stack.callback(self.checkpoints.close)
            if self.chief:
                self._metrics = MetricsLog(experiment.run / METRICS, self.step, self._trackers())
                stack.callback(self._metrics.close)
            if self.changed:
                self._write("settings", changed={name: new for name, (_, new) in self.changed.items()})
            pipeline = Pipeline(
                self.plan,
                start=self.step,
                workers=experiment.workers,
                host=jax.process_index(),
                hosts=jax.process_count(),
                report=self._report,
            )
            stack.callback(pipeline.close)
            if self.chief:
                self.log("\n".join(opening(experiment, self.state, self.plan, self._mesh)))
            self._progress = stack.enter_context(
                shown(experiment, self.config, pipeline, self.log if self.chief else ignore, self.step)
            )
            self._steps(pipeline)
        if self.chief:
            self._export()
        if jax.process_count() > 1:  # jax.distributed treats a process that exits early as failed
            multihost_utils.sync_global_devices("the end")

    def _trackers(self) -> list[Tracker]:
        """Opens the services that the settings name."""
        experiment = self.experiment
        services = (*experiment.track, *(("tensorboard",) if experiment.tensorboard else ()))
        return open_trackers(services, experiment.run, self.step, json.loads(experiment.to_json()))

    def _steps(self, pipeline: Pipeline) -> None:
        """Steps, evaluates and saves until the last step. Raises Stopped where any process was asked to stop."""
        experiment, before = self.experiment, None
        over = self._over()
        while self.step < experiment.steps and not over:
            batch = self._placed(next(pipeline))
            self.state, metrics = self._step(self.state, batch)
            self.step += 1
            self._record(before)  # the numbers of the step before, while this one is computed
            before = self.step, metrics, self._frames_of(batch)
            evaluates = self.step % experiment.evaluate_every == 0 or self.step == experiment.steps
            stops = self._stop_agreed()
            if evaluates or stops or self.step % experiment.save_every == 0:
                self._record(before)
                before = None
                wer = self._evaluate() if evaluates and not stops else None
                self.checkpoints.save(self.step, self.state, wer)
                over = evaluates and self._over()
            if stops:
                self.checkpoints.wait()
                raise Stopped(f"stopped after step {self.step}, which is saved; the same command resumes from there")
        self.checkpoints.wait()

    def _over(self) -> bool:
        """Returns whether the dev WER has not fallen for `patience` evaluations. Every process must call this."""
        best, since = best_evaluation(self.experiment.run / METRICS) if self.chief else (0, 0)
        over = self._agreed(0 < self.experiment.patience <= since)
        if over and self.chief:
            self.log(f"the dev WER was lowest at step {best}, and {since} evaluations after it were no better: the end")
        return over

    def _frames_of(self, batch: Batch) -> int:
        """Returns the encoder frames of a batch, padding included."""
        rows, samples = batch.samples.shape
        return int(rows * (samples // self.config.frame_samples))

    def _placed(self, batch: Any) -> Batch:
        """Places this process's rows of a batch on its devices."""
        if self._mesh is None:
            return Batch(*(jax.device_put(np.asarray(getattr(batch, name))) for name in Batch._fields))
        return sharding.place_batch(batch, self._mesh)

    def _record(self, entry: tuple[int, StepMetrics, int] | None) -> None:
        """Writes a step's numbers to the metrics. Raises RunError after too many skipped steps in a row."""
        if entry is None:
            return
        step, metrics, padded_frames = entry
        values: StepMetrics = jax.tree.map(lambda x: np.asarray(x).item(), metrics)
        counts = values.counts
        self._progress.update(step, values, padded_frames)
        self._write(
            "train",
            step,
            loss=values.loss,
            **{f"loss_{name}": value for name, value in values.losses.items()},
            gradient_norm=values.gradient_norm,
            learning_rate=values.learning_rate,
            lookahead=values.lookahead,
            skipped=values.skipped,
            utterances=counts.rows,
            frames=counts.frames,
            labels=counts.labels,
            **self._progress.numbers(),
        )
        if values.skipped:
            parts = ", ".join(f"{name} {value:.4g}" for name, value in values.losses.items())
            self.log(
                f"step {step} is skipped: loss {values.loss:.4g} ({parts}), gradient norm {values.gradient_norm:.4g}"
            )
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if values.skipped else 0
        if self._skipped_in_a_row >= self.experiment.stop_after_skipped:
            raise RunError(
                f"{self._skipped_in_a_row} steps in a row were skipped, the last of them step {step}; the weights are "
                f"from before these steps. Try a lower learning rate, and check the data; checkpoints: "
                f"{', '.join(map(str, self.checkpoints.steps)) or 'none'}"
            )

    def _evaluate(self) -> float | None:
        """Measures WER and CER of each dev manifest at each look-ahead, with the streaming step.

        Returns the mean WER; None where nothing could be scored, and in all processes but the chief.
        """
        if not self.dev:
            return None
        model = self._host_model()
        if not self.chief:
            return None
        recognizer = Recognizer(jax.device_put(model), self.config, self.tokenizer)
        wers = []
        for row in dev_rows(recognizer, self.dev, self.experiment.dev_batch, self._report):
            wers.append(row["wer"])
            self._write("dev", **row)
        finite = [wer for wer in wers if math.isfinite(wer)]
        if not finite:
            return None
        self._progress.wer = sum(finite) / len(finite)
        sample = f"\n  reference:  {row['reference']}\n  transcript: {row['transcript']}" if row["words"] else ""
        self.log(f"step {self.step}: dev WER {self._progress.wer:.2%}{sample}")
        return self._progress.wer

    def _host_model(self) -> Any:
        """Returns the model to evaluate, in host memory. Every process must call this."""
        model = model_of(self.state, self.config)
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(model, tiled=True)
        return jax.tree.map(np.asarray, model)

    def _export(self) -> None:
        """Exports the best weights, or the last where none were evaluated, as a native checkpoint."""
        from experiments.training.export import export

        out = self.experiment.run / FINAL_MODEL
        step = export(self.experiment.run, out, replace=True)
        self.log(f"{out} holds the weights of step {step}")

    def _request_stop(self, number: int, frame: Any) -> None:
        """Handles a signal: stops after this step; a second SIGINT stops at once."""
        if self._stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop_requested = True

    def _stop_agreed(self) -> bool:
        """Returns whether any process was asked to stop, because all must stop after the same step."""
        return self._agreed(self._stop_requested)

    def _agreed(self, value: bool) -> bool:
        """Returns whether the value is true in any process."""
        if jax.process_count() == 1:
            return value
        return bool(np.any(multihost_utils.process_allgather(np.array(value))))

    def _report(self, sentence: object) -> None:
        """Reports a problem with the data once, not at each look-ahead of each evaluation."""
        if (message := str(sentence)) not in self._reported:
            self._reported.add(message)
            self.log(message)
            self._write("data", message=message)

    def _write(self, kind: str, step: int | None = None, **values: Any) -> None:
        if self._metrics is not None:
            self._metrics.write(kind, self.step if step is None else step, **values)
