"""The training loop: steps, evaluations, checkpoints, and the end of a run, wished for or not.

A run is a function of its settings. Its state is a checkpoint, its data's position is the number of the step:
whenever it is killed, the same command goes on from the last checkpoint as if it had never stopped.
"""

import dataclasses
import json
import math
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from experiments.accuracy.scoring import evaluate
from experiments.harness.output import labels, spread
from experiments.training.presets import FIXED, Experiment, changes
from experiments.training.run_directory import (
    METRICS,
    ORIGIN,
    SETTINGS,
    TOKENIZER,
    Checkpoints,
    Metrics,
    RunError,
    saved_steps,
    write_json,
)
from experiments.training.start import Start, start
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording
from nemojax.config import ModelConfig
from nemojax.data.corpus import Corpus, load_corpus
from nemojax.data.pipeline import Pipeline
from nemojax.data.plan import Plan
from nemojax.errors import AudioError
from nemojax.metrics import total
from nemojax.model.parameters import abstract_model
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.tokenizer import Tokenizer
from nemojax.training import sharding
from nemojax.training import step as training
from nemojax.training.step import Batch

COMPILED = "compiled"  # where compiled steps are kept, in the run's directory
FINAL_MODEL = "model"
SMOOTHED = 100  # steps that the bar's loss and rates are means of


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


class Run:
    """A training run in its directory: begun, or gone on with. `train` runs it to its end."""

    def __init__(self, experiment: Experiment, say: Callable[[str], None] = tqdm.write):
        self.experiment, self.say = experiment, say
        self.chief = jax.process_index() == 0  # the process that writes metrics and evaluates
        directory = experiment.run
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory} can't be written: {error.strerror}") from None
        began = start(experiment) if not (directory / SETTINGS).exists() else self._began()
        self.config: ModelConfig = began.model.config
        self.tokenizer = Tokenizer(began.tokenizer)
        self.plan = self._plan()
        self.changed = self._keep_settings(began)
        jax.config.update("jax_compilation_cache_dir", str((directory / COMPILED).absolute()))
        self.checkpoints = Checkpoints(directory / "checkpoints", experiment.keep)
        self._prepare_step(began)
        self.dev = {label: self._dev_entries(path) for label, path in labels(experiment.dev).items()}
        self._reported: set[str] = set()
        self._asked_to_stop = False
        self._skipped_in_a_row = int(self.state.skipped_in_a_row)

    def _began(self) -> Start:
        """What a run that is gone on with had begun with; its weights come with its state, these are placeholders."""
        directory, experiment = self.experiment.run, self.experiment
        try:
            tokenizer, origin = (directory / TOKENIZER).read_bytes(), json.loads((directory / ORIGIN).read_text())
            config = ModelConfig.from_json(json.dumps(json.loads((directory / SETTINGS).read_text())["started"]))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{directory} does not hold a run that can be gone on with: {error}") from None
        if not saved_steps(directory / "checkpoints"):
            return start(dataclasses.replace(experiment, tokenizer=directory / TOKENIZER))
        return Start(abstract_model(config), tokenizer, origin)

    def _plan(self) -> Plan:
        experiment = self.experiment
        with tqdm(desc="manifests", unit=" entries", disable=None, leave=False) as bar:
            progress = lambda entries: ((bar.update() and entry) or entry for entry in entries)
            sources = experiment.sources()
            corpus: Corpus = load_corpus(sources, self.tokenizer, self.config, experiment.filters, progress)
        self.say(corpus.report())
        rows = math.lcm(jax.device_count() * experiment.training.accumulation, experiment.plan.rows_multiple)
        settings = dataclasses.replace(experiment.plan, rows_multiple=rows)
        return Plan(corpus, self.config, settings, experiment.waveform)

    def _dev_entries(self, path: Path) -> list[Recording | AudioError]:
        entries = expand_manifest(path)
        if not any(isinstance(entry, Recording) for entry in entries):
            raise RunError(f"--dev {path}: {entries[0] if entries else 'it is empty'}")
        return spread(entries, self.experiment.dev_utterances)

    def _keep_settings(self, began: Start) -> dict[str, Any]:
        """Writes the settings down, or compares them with those of the run that is gone on with."""
        path = self.experiment.run / SETTINGS
        now = json.loads(self.experiment.to_json()) | {
            "started": json.loads(self.config.to_json()),
            "data": self.plan.fingerprint,
        }
        if path.exists():
            different = changes(json.loads(path.read_text()), now)
            fixed = {name: change for name, change in different.items() if name.startswith(FIXED)}
            if fixed or (different and not self.experiment.accept_changes):
                shown = fixed or different
                listed = "; ".join(f"{name}: {old!r} then, {new!r} now" for name, (old, new) in shown.items())
                raise RunError(
                    f"{self.experiment.run} was begun with other settings ({listed}); "
                    f"use those{', or' if fixed else ','} another directory{'' if fixed else ', or --accept-changes'}"
                )
        else:
            different = {}
        if self.chief:
            try:
                if not path.exists():
                    (self.experiment.run / TOKENIZER).write_bytes(began.tokenizer)
                    write_json(self.experiment.run / ORIGIN, began.origin)
                write_json(path, now)  # last: where it is, all else is
            except OSError as error:
                raise RunError(f"{self.experiment.run} can't be written: {error.strerror}") from None
        return different

    def _prepare_step(self, began: Start) -> None:
        """The state to begin with, and the compiled step, on one device or on a mesh."""
        recipe, config, last = self.experiment.training, self.config, self.checkpoints.last
        init = partial(training.init, recipe=recipe)
        like = jax.eval_shape(init, began.model)
        if jax.device_count() == 1:
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            shardings = jax.tree.map(lambda _: here, like)
            self._step = partial(training.train_step_jit, config=config, recipe=recipe)
            self._mesh = None
        else:
            self._mesh = sharding.make_mesh(self.experiment.mesh_data, self.experiment.mesh_fsdp)
            shardings = sharding.state_shardings(like, self._mesh)
            self._step = sharding.sharded_step(self._mesh, shardings, config, recipe)
        if last is None:
            state = init(began.model)
            self.state = state if jax.device_count() == 1 else sharding.place_state(state, shardings)
        else:
            placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)
            self.state = self.checkpoints.restore(placed, last)
        self.step = int(self.state.step)

    def train(self) -> None:
        """Trains to the last step.

        Raises:
          Stopped: on SIGTERM or SIGINT, once the state is saved.
          RunError: too many steps in a row were skipped, or a checkpoint can't be written.
          DataError: see `Pipeline`.
        """
        experiment = self.experiment
        with ExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGINT):
                stack.callback(signal.signal, number, signal.signal(number, self._ask_to_stop))
            stack.callback(self.checkpoints.close)
            self._metrics = Metrics(experiment.run / METRICS, self.step, experiment.tensorboard) if self.chief else None
            if self._metrics is not None:
                stack.callback(self._metrics.close)
            if self.changed:
                self._write("settings", changed={name: new for name, (_, new) in self.changed.items()})
            hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
            pipeline = Pipeline(self.plan, start=self.step, workers=experiment.workers, report=self._report, **hosts)
            stack.callback(pipeline.close)
            bar = stack.enter_context(
                tqdm(initial=self.step, total=experiment.steps, unit="step", disable=None, smoothing=0.05)
            )
            self._bar = _Bar(bar, pipeline)
            self._steps(pipeline)
        if self.chief:
            self._export()
        if jax.process_count() > 1:  # who ends early is taken for dead
            multihost_utils.sync_global_devices("the end")

    def _steps(self, pipeline: Pipeline) -> None:
        experiment, before = self.experiment, None
        while self.step < experiment.steps:
            batch = self._placed(next(pipeline))
            self.state, metrics = self._step(self.state, batch)
            self.step += 1
            # the numbers of the step before are read while this one is computed
            self._note(before)
            before = self.step, metrics
            evaluates = self.step % experiment.evaluate_every == 0 or self.step == experiment.steps
            stops = self._agreed_to_stop()
            if evaluates or stops or self.step % experiment.save_every == 0:
                self._note(before)
                before = None
                wer = self._evaluate() if evaluates and not stops else None
                self.checkpoints.save(self.step, self.state, wer)
            if stops:
                self.checkpoints.wait()
                raise Stopped(f"stopped after step {self.step}, which is saved; the same command goes on from there")
        self.checkpoints.wait()

    def _placed(self, batch: Any) -> Batch:
        """This process's rows of a batch, on its devices."""
        if self._mesh is None:
            return Batch(*(jnp.asarray(getattr(batch, name)) for name in Batch._fields))
        return sharding.place_batch(batch, self._mesh)

    def _note(self, entry: tuple[int, training.Metrics] | None) -> None:
        """Writes a step's numbers down. Raises RunError after too many skipped steps in a row."""
        if entry is None:
            return
        step, metrics = entry
        values = jax.tree.map(lambda x: np.asarray(x).item(), metrics)
        counts = values.counts
        self._bar.note(step, values)
        self._write(
            "train",
            step,
            loss=values.loss,
            gradient_norm=values.gradient_norm,
            learning_rate=values.learning_rate,
            lookahead=values.lookahead,
            skipped=values.skipped,
            utterances=counts.rows,
            frames=counts.frames,
            labels=counts.labels,
            waited_share=round(self._bar.waited_share, 4),
        )
        if values.skipped:
            self.say(f"step {step} is skipped: loss {values.loss:.4g}, gradient norm {values.gradient_norm:.4g}")
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if values.skipped else 0
        if self._skipped_in_a_row >= self.experiment.stop_after_skipped:
            raise RunError(
                f"{self._skipped_in_a_row} steps in a row were skipped, the last of them step {step}; the weights are "
                f"those from before. A lower learning rate or a look at the data may help; checkpoints: "
                f"{', '.join(map(str, self.checkpoints.steps)) or 'none'}"
            )

    def _evaluate(self) -> float | None:
        """WER and CER of each dev manifest at each look-ahead, by the streaming step; their mean WER."""
        if not self.dev:
            return None
        model = self._host_model()
        if not self.chief:
            return None
        recognizer = Recognizer(jax.tree.map(jnp.asarray, model), self.config, self.tokenizer)
        wers = []
        for name, entries in self.dev.items():
            for lookahead in self.config.encoder.lookaheads:
                began = time.perf_counter()
                scored = evaluate(recognizer, entries, lookahead, self.experiment.dev_batch, report=self._report)
                words, characters = total(u.words for u in scored), total(u.characters for u in scored)
                wers.append(words.rate)
                self._write(
                    "dev",
                    manifest=name,
                    lookahead=lookahead,
                    wer=words.rate,
                    cer=characters.rate,
                    errors=words.errors,
                    words=words.reference,
                    failed=len(entries) - len(scored),
                    seconds=round(time.perf_counter() - began, 2),
                )
        finite = [wer for wer in wers if math.isfinite(wer)]
        if not finite:  # nothing could be scored, as was said
            return None
        self._bar.wer = sum(finite) / len(finite)
        self.say(f"step {self.step}: dev WER {self._bar.wer:.2%}")
        return self._bar.wer

    def _host_model(self) -> Any:
        """The model as it is evaluated, in host memory; every process takes part, and the chief gets it."""
        model = training.model_of(self.state, self.config)
        if jax.process_count() > 1:
            return multihost_utils.process_allgather(model, tiled=True)
        return jax.tree.map(np.asarray, model)

    def _export(self) -> None:
        """The best weights, or the last where none were evaluated, as a native checkpoint."""
        from experiments.training.export import export

        out = self.experiment.run / FINAL_MODEL
        step = export(self.experiment.run, out, replace=True)
        self.say(f"{out} holds the weights of step {step}")

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        if self._asked_to_stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def _agreed_to_stop(self) -> bool:
        """Whether any process was asked to stop: all must do so after the same step."""
        if jax.process_count() == 1:
            return self._asked_to_stop
        return bool(np.any(multihost_utils.process_allgather(np.array(self._asked_to_stop))))

    def _report(self, sentence: object) -> None:
        if (message := str(sentence)) not in self._reported:  # once, not at each look-ahead of each evaluation
            self._reported.add(message)
            self.say(message)
            self._write("data", message=message)

    def _write(self, kind: str, step: int | None = None, **values: Any) -> None:
        if self._metrics is not None:
            self._metrics.write(kind, self.step if step is None else step, **values)


class _Bar:
    """A progress bar: mean loss, last dev WER, utterances per second, share of the time spent waiting for data."""

    def __init__(self, bar: tqdm, pipeline: Pipeline):
        self._bar, self._pipeline, self.wer = bar, pipeline, math.nan
        now = time.perf_counter(), pipeline.waited_s, 0
        self._marks: deque[tuple[float, float, int]] = deque([now], SMOOTHED)
        self._losses: deque[float] = deque(maxlen=SMOOTHED)

    def note(self, step: int, metrics: training.Metrics) -> None:
        if not metrics.skipped:
            self._losses.append(float(metrics.loss))
        utterances = self._marks[-1][2] + int(metrics.counts.rows)
        self._marks.append((time.perf_counter(), self._pipeline.waited_s, utterances))
        shown = {
            "loss": f"{np.mean(self._losses or [np.nan]):.3f}",
            "WER": f"{self.wer:.1%}",
            "utt/s": f"{self._utterances_per_s:.1f}",
            "waiting": f"{self.waited_share:.0%}",
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)

    @property
    def _utterances_per_s(self) -> float:
        (begin, _, before), (end, _, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)

    @property
    def waited_share(self) -> float:
        (begin, before, _), (end, after, _) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)
