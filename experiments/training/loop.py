"""The training loop: steps, evaluations, checkpoints, and how a run ends: finished, stopped or failed.

A run is a function of its settings. Its state is a checkpoint, and the step's number is its position in the data. If it
is killed, the same command resumes from the last checkpoint and computes the same numbers.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from experiments.harness.output import labels
from experiments.training.dev_scores import dev_rows
from experiments.training.early_stopping import reason_to_end
from experiments.training.kept_settings import keep_settings, started_run
from experiments.training.opening import opening
from experiments.training.operations import peak, step_operations
from experiments.training.planning import dev_entries, plan_batches
from experiments.training.presets import Experiment
from experiments.training.progress import Lines, ProgressBar, say
from experiments.training.run_directory import (
    METRICS,
    SETTINGS,
    Checkpoints,
    MetricsLog,
    RunError,
    read_metrics,
)
from experiments.training.start import Start, check_trained, start
from experiments.training.trackers import TENSORBOARD, Tracker, check_installed, trackers
from nemojax import compilation
from nemojax.checks import check_local
from nemojax.config import ModelConfig
from nemojax.data.buckets import Bucket
from nemojax.data.pipeline import Pipeline
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.tokenizer import Tokenizer
from nemojax.training import sharding
from nemojax.training.forward import Batch
from nemojax.training.losses import Counts, Loss
from nemojax.training.state import TrainState, init, model_of, partition
from nemojax.training.step import StepMetrics, train_step_jit

COMPILED = "compiled"  # subdirectory of the run for compiled steps, unless the user has named jax's own directory
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
        log: Callable[[str], None] = say,
        losses: tuple[Loss, ...] | None = None,
    ):
        experiment = experiment.resolved()
        self.experiment, self.log, self._losses = experiment, log, losses
        self.chief = jax.process_index() == 0  # the process that writes metrics and evaluates
        directory = experiment.run
        check_local(directory)
        check_installed(self._tracker_names())
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory} can't be written: {error.strerror}") from None
        started = start(experiment) if not (directory / SETTINGS).exists() else started_run(experiment)
        self.config: ModelConfig = started.model.config
        self.tokenizer = Tokenizer(started.tokenizer)
        self.plan = plan_batches(experiment, self.tokenizer, self.config, log if self.chief else lambda line: None)
        like = jax.eval_shape(partial(init, recipe=experiment.training), started.model)
        check_trained(started.drawn, like.parameters, experiment.training)  # before anything is kept
        self.changed = keep_settings(experiment, started, self.plan.fingerprint, losses, self.chief)
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            compilation.keep(directory / COMPILED)
        self.checkpoints = Checkpoints(directory / "checkpoints", experiment.keep)
        self._prepare_step(started, like)
        self.dev = {name: dev_entries(path, experiment.dev_utterances) for name, path in labels(experiment.dev).items()}
        self._metrics: MetricsLog | None = None  # open during `train`
        self._reported: set[str] = set()
        self._stop_requested = False
        self._skipped_in_a_row = int(self.state.skipped_in_a_row)

    def _prepare_step(self, started: Start, like: TrainState) -> None:
        """Prepares the first state, new or restored, and the step to compile, on one device or on a mesh.

        Args:
          like: the shapes of the state.
        """
        recipe, config, last = self.experiment.training, self.config, self.checkpoints.last
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
            state = init(started.model, recipe)
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
            bar = stack.enter_context(
                tqdm(initial=self.step, total=experiment.steps, unit="step", disable=None, smoothing=0.05)
            )
            self._bar = self._progress(bar, pipeline)
            self._open()
            self._steps(pipeline)
        if self.chief:
            self._export()
        if jax.process_count() > 1:  # jax.distributed treats a process that exits early as failed
            multihost_utils.sync_global_devices("the end")

    def _steps(self, pipeline: Pipeline) -> None:
        """Steps, evaluates and saves until the last step. Raises Stopped where any process was asked to stop."""
        experiment, before = self.experiment, None
        ends, compiled = self._ends_early(), set[Bucket]()
        while self.step < experiment.steps and not ends:
            batch = self._placed(next(pipeline))
            rows, samples = batch.samples.shape  # of all processes
            bucket = Bucket(samples // self.config.frame_samples, batch.labels.shape[1], rows)
            begin = time.perf_counter()
            if bucket not in compiled:
                self._bar.compiles(self.step + 1, rows, samples / self.config.features.sample_rate_hz)
            self.state, metrics = self._step(self.state, batch)
            if bucket not in compiled:
                compiled.add(bucket)
                self._bar.leave_out(time.perf_counter() - begin, returns=False)
            self.step += 1
            self._record(before)  # the numbers of the step before, while this one is computed
            before = self.step, metrics, bucket.frames * bucket.batch
            evaluates = self.step % experiment.evaluate_every == 0 or self.step == experiment.steps
            stops = self._stop_agreed()
            if evaluates or stops or self.step % experiment.save_every == 0:
                self._record(before)
                before = None
                begin = time.perf_counter()
                wer = self._evaluate() if evaluates and not stops else None
                self._bar.leave_out(time.perf_counter() - begin, returns=True)
                self.checkpoints.save(self.step, self.state, wer)
                ends = evaluates and self._ends_early()
            if stops:
                self.checkpoints.wait()
                raise Stopped(
                    f"stopped after step {self.step}, which is saved in {self.checkpoints.directory / str(self.step)}; "
                    f"the same command resumes with step {self.step + 1}"
                )
        self.checkpoints.wait()

    def _placed(self, batch: Any) -> Batch:
        """Places this process's rows of a batch on its devices."""
        if self._mesh is None:
            return Batch(*(jax.device_put(np.asarray(getattr(batch, name))) for name in Batch._fields))
        return sharding.place_batch(batch, self._mesh)

    def _record(self, entry: tuple[int, StepMetrics, int] | None) -> None:
        """Writes a step's numbers to the metrics. Raises RunError after too many skipped steps in a row."""
        if entry is None:
            return
        step, metrics, slots = entry
        values: StepMetrics = jax.tree.map(lambda x: np.asarray(x).item(), metrics)
        counts = values.counts
        self._bar.update(step, values, slots)
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
            padding_share=round(1 - counts.frames / slots, 4),
            waited_share=round(self._bar.waited_share, 4),
            frames_per_s=round(self._bar.frames_per_s, 1),
            utilization=self._bar.utilization,
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
        number = self.step // self.experiment.evaluate_every
        for row in dev_rows(recognizer, self.dev, self.experiment.dev_batch, self._report, number):
            wers.append(row["wer"])
            if "hypothesis" in row:
                self.log(f"step {self.step}, {row['manifest']}, look-ahead {row['lookahead']}, a sample:")
                self.log(f"  reference:  {row['reference']}\n  hypothesis: {row['hypothesis']}")
            self._write("dev", **row)
        finite = [wer for wer in wers if math.isfinite(wer)]
        if not finite:
            return None
        self._bar.wer = sum(finite) / len(finite)
        self.log(f"step {self.step}: dev WER {self._bar.wer:.2%}")
        return self._bar.wer

    def _ends_early(self) -> bool:
        """Returns whether the run ends before its last step; see `early_stopping`. Every process must call this."""
        if not self.experiment.patience:
            return False
        reason = None
        if self.chief:
            reason = reason_to_end(read_metrics(self.experiment.run / METRICS), self.experiment.patience)
        if reason is not None:
            self.log(f"the run ends after step {self.step}: {reason}")
        ends = np.array(reason is not None)
        return bool(ends if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(ends))

    def _open(self) -> None:
        """Logs what the run does, and the step that it begins with."""
        lines = opening(self.experiment, self.config, self.plan, self.state.parameters, self._mesh)
        last = self.checkpoints.last
        begin = f"resumes with step {self.step + 1}" if self.step else "begins with step 1"
        source = f", from {self.checkpoints.directory / str(last)}" if self.step else ""
        for line in [*lines, f"{self.experiment.run} {begin} of {self.experiment.steps}{source}"] if self.chief else ():
            self.log(line)

    def _progress(self, bar: "tqdm[Any]", pipeline: Pipeline) -> ProgressBar:
        """Returns the progress bar, which also knows the operations of a step and the devices' peak."""
        experiment, recipe = self.experiment, self.experiment.training
        trained, _ = partition(self.state.parameters, recipe)
        one = experiment.peak_tflops * 1e12 or peak(jax.devices()[0].device_kind, recipe.dtype)

        def operations(counts: Counts) -> float:
            return step_operations(self.config, int(counts.frames), int(counts.labels), int(counts.rows), set(trained))

        lines = Lines(self.log if self.chief else lambda line: None, experiment.log_seconds, experiment.steps)
        return ProgressBar(bar, pipeline, lines, operations, one and one * jax.device_count())

    def _tracker_names(self) -> list[str]:
        return [*self.experiment.track, *([TENSORBOARD] if self.experiment.tensorboard else [])]

    def _trackers(self) -> list[Tracker]:
        settings = json.loads(self.experiment.to_json())
        return trackers(self._tracker_names(), self.experiment.run, self.step, settings)

    def _host_model(self) -> Any:
        """Returns the model to evaluate, in host memory. Every process must call this."""
        model = model_of(self.state, self.config, self.experiment.training.lora)
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
        if jax.process_count() == 1:
            return self._stop_requested
        return bool(np.any(multihost_utils.process_allgather(np.array(self._stop_requested))))

    def _report(self, sentence: object) -> None:
        """Reports a problem with the data once, not at each look-ahead of each evaluation."""
        if (message := str(sentence)) not in self._reported:
            self._reported.add(message)
            self.log(message)
            self._write("data", message=message)

    def _write(self, kind: str, step: int | None = None, **values: Any) -> None:
        if self._metrics is not None:
            self._metrics.write(kind, self.step if step is None else step, **values)
