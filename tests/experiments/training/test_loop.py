"""The training loop, on noise: what stops a run, and how it is resumed."""

import dataclasses
import json
import math
import os
import re
import resource
import shutil
import signal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training import loop, train
from experiments.training.export import export
from experiments.training.loop import Run, Stopped
from experiments.training.presets import Experiment
from experiments.training.run_directory import Checkpoints, RunError, read_metrics
from experiments.training.start import BLANK_SHARE, start
from nemojax import checkpoint, compilation
from nemojax.errors import ConfigError
from nemojax.model.parameters import named_parameters
from nemojax.training.lora import LoraConfig
from nemojax.training.losses import Loss
from nemojax.training.recipe import TrainingConfig
from tests.data.corpora import write_speech
from tests.experiments.training.runs import STEPS, TEXTS, losses, messages
from tests.helpers.messages import whole


class Interrupted(BaseException):
    """Ends a run within a process as suddenly as kill -9."""


def test_an_interrupted_run_resumes_with_the_same_numbers(experiment, undisturbed, undisturbed_run, monkeypatch):
    assert [step for step, _ in undisturbed] == list(range(1, STEPS + 1))
    rows = read_metrics(undisturbed_run / "metrics.jsonl")
    assert all(row["loss_rnnt"] == row["loss"] and row["learning_rate"] > 0 for row in rows)
    assert len({loss for _, loss in undisturbed}) == STEPS
    slots = {round(row["frames"] / (1 - row["padding_share"])) for row in rows}
    assert len(slots) == 1 and slots.pop() % 14 == 0 and all(0 < row["padding_share"] < 1 for row in rows)
    for last in (3, 9):  # before the first checkpoint, and after the second
        note = Run._record

        def interrupt(self, entry, last=last, note=note):
            note(self, entry)
            if entry is not None and entry[0] == last:
                self.checkpoints.wait()
                raise Interrupted

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(Run, "_record", interrupt)
            messages(experiment)
        assert losses(experiment.run) == undisturbed[:last]
    messages(experiment)
    assert losses(experiment.run) == undisturbed
    assert Checkpoints(experiment.run / "checkpoints", None).steps == [8, 12]


def test_compiled_steps_are_kept_in_the_run_unless_the_user_names_a_directory(settings, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(compilation, "keep", kept.append)
    for named in ("elsewhere", ""):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", named)
        Run(dataclasses.replace(settings, run=tmp_path / f"run{named}"), log=lambda line: None)
    assert kept == [tmp_path / "run" / "compiled"]


def test_a_run_that_can_not_begin_keeps_no_settings(experiment, monkeypatch):
    monkeypatch.setattr(loop, "check_trained", mock.Mock(side_effect=RunError("they are not trained")))
    with pytest.raises(RunError, match=whole("they are not trained")):
        Run(experiment)
    assert not (experiment.run / "settings.json").exists()


def test_sigterm_saves_and_stops(experiment, undisturbed, monkeypatch):
    note = Run._record

    def ask(self, entry):
        note(self, entry)
        if entry is not None and entry[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    saved = f"which is saved in {experiment.run}/checkpoints/6; the same command resumes with step 7"
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=whole(f"stopped after step 6, {saved}")):
        patch.setattr(Run, "_record", ask)
        messages(experiment)
    assert Checkpoints(experiment.run / "checkpoints", None).last == 6
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    messages(experiment)
    assert losses(experiment.run) == undisturbed


def test_the_settings_that_a_run_keeps_begin_it_again(experiment, undisturbed, tmp_path):
    messages(experiment)
    kept = experiment.run / "settings.json"
    before = kept.read_bytes()
    assert train.main(["--settings", str(kept)]) == 0  # the same run, which is at its end
    assert kept.read_bytes() == before and losses(experiment.run) == undisturbed
    assert train.main(["--settings", str(kept), str(tmp_path / "again")]) == 0
    assert losses(tmp_path / "again") == undisturbed
    again = json.loads((tmp_path / "again" / "settings.json").read_text())
    assert again == json.loads(before) | {"run": str(tmp_path / "again")}
    same = [checkpoint.load(directory / "model")[0] for directory in (tmp_path / "again", experiment.run)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *same))


def test_dev_rates_and_the_best_checkpoint(experiment, speech):
    evaluated = dataclasses.replace(experiment, dev=(speech[1],), evaluate_every=4)
    wers = iter([0.5, 0.2, 0.9])
    original = Run._evaluate

    def evaluate(self):
        original(self)
        return next(wers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_evaluate", evaluate)
        messages(dataclasses.replace(evaluated, keep=1, tensorboard=True))
    assert list((experiment.run / "tensorboard").glob("events*"))
    rows = [row for row in read_metrics(experiment.run / "metrics.jsonl") if row["kind"] == "dev"]
    assert [(row["step"], row["lookahead"]) for row in rows] == [(s, r) for s in (4, 8, 12) for r in (13, 6, 1, 0)]
    assert all(row["manifest"] == "dev" and row["words"] == 11 and row["failed"] == 0 for row in rows)
    assert all(row["wer"] == row["errors"] / 11 and row["cer"] > 0 for row in rows)
    checkpoints = Checkpoints(experiment.run / "checkpoints", None)
    assert checkpoints.steps == [8, 12] and checkpoints.best == 8
    assert checkpoint.load(experiment.run / "model")[3]["step"] == 8
    samples = {row["step"]: row["reference"] for row in rows if "hypothesis" in row}
    assert list(samples) == [4, 8, 12] and all(row["lookahead"] == 13 for row in rows if "hypothesis" in row)
    assert list(samples.values()) == [TEXTS[1], TEXTS[2], TEXTS[0]]  # another one each time


def test_a_run_ends_when_its_dev_rate_falls_no_more(experiment, speech, monkeypatch):
    wers = {3: 0.5, 6: 0.2, 9: 0.3, 12: 0.25}

    def evaluate(self):
        self._write("dev", manifest="dev", lookahead=13, wer=wers[self.step])
        return wers[self.step]

    monkeypatch.setattr(Run, "_evaluate", evaluate)
    patient = dataclasses.replace(experiment, dev=(speech[1],), evaluate_every=3, patience=1)
    found = messages(patient)
    ended = "the run ends after step 9: the dev WER has not fallen in 1 evaluation since step 6, where it was 20.00%"
    assert ended in found and len(losses(experiment.run)) == 9
    assert checkpoint.load(experiment.run / "model")[3]["step"] == 6
    again = messages(patient)  # the same command has nothing left to do
    assert ended in again and len(losses(experiment.run)) == 9
    assert f"{experiment.run} resumes with step 10 of 12, from {experiment.run}/checkpoints/9" in again
    with pytest.raises(ConfigError, match=r"^patience needs a dev manifest: name one with --dev, or set --patience 0$"):
        Run(dataclasses.replace(patient, dev=()))


@pytest.mark.slow
def test_lora_trains_resumes_and_is_exported_merged(experiment, begun, tmp_path, speech):
    """From a checkpoint, with replay and a cosine schedule; the kernels of attention change, and nothing else."""
    first = tmp_path / "first"
    export(experiment.run, first)
    recipe = TrainingConfig(
        dtype="float32",
        schedule="cosine",
        learning_rate=1e-2,
        warmup_steps=2,
        lora=LoraConfig(rank=2),
        average_decay=0.9,
    )
    tuned = dataclasses.replace(
        experiment, run=tmp_path / "tuned", init=first, training=recipe, replay=(str(speech[1]),), save_every=3, steps=6
    )
    with pytest.raises(RunError, match=r"training.decay_steps: 3 then, 6 now"):
        messages(dataclasses.replace(tuned, steps=3))
        messages(tuned)
    shutil.rmtree(tuned.run)
    assert any(line.startswith("parameters: ") and "frozen" in line for line in messages(tuned))
    before, after = (named_parameters(checkpoint.load(path)[0]) for path in (first, tuned.run / "model"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(re.search(LoraConfig().kernels, name) for name in changed)


def test_a_mean_of_checkpoints(experiment, undisturbed_run, tmp_path):
    checkpoints = Checkpoints(undisturbed_run / "checkpoints", None)
    assert checkpoints.steps == [8, 12]
    checkpoints.close()
    assert export(undisturbed_run, tmp_path / "mean", average=2) == 12
    parts = []
    for step in (8, 12):
        export(undisturbed_run, tmp_path / str(step), step)
        parts.append(named_parameters(checkpoint.load(tmp_path / str(step))[0]))
    mean, _, _, origin = checkpoint.load(tmp_path / "mean")
    assert origin["averaged"] == [8, 12]
    for name, value in named_parameters(mean).items():
        np.testing.assert_allclose(value, (parts[0][name] + parts[1][name]) / 2, rtol=1e-5, atol=1e-7)
    message = f"{undisturbed_run} has 2 checkpoints up to step 12 (8, 12), and the mean of 3 is asked for"
    with pytest.raises(RunError, match=whole(f"{message}; set a lower --average")):
        export(undisturbed_run, tmp_path / "three", average=3)
    message = f"{undisturbed_run} has 1 checkpoints up to step 8 (8), and the mean of 2 is asked for"
    with pytest.raises(RunError, match=whole(f"{message}; set a lower --average")):
        export(undisturbed_run, tmp_path / "two", 8, average=2)


def test_a_bad_step_is_reported_and_too_many_end_the_run(experiment, monkeypatch):
    place = Run._placed

    def poison(self, batch):
        batch = place(self, batch)
        return batch._replace(samples=batch.samples * np.nan) if self.step in (2, 6, 7, 8) else batch

    monkeypatch.setattr(Run, "_placed", poison)
    sentences: list[str] = []
    run = Run(experiment, sentences.append)
    with pytest.raises(RunError, match=r"3 steps in a row were skipped, the last of them step 9.*checkpoints: 4, 8"):
        run.train()
    assert [s.split(":")[0] for s in sentences if "skipped" in s] == [f"step {n} is skipped" for n in (3, 7, 8, 9)]
    rows = {row["step"]: row["skipped"] for row in read_metrics(experiment.run / "metrics.jsonl")}
    assert [step for step, skipped in rows.items() if skipped] == [3, 7, 8, 9]
    assert all(np.isfinite(leaf).all() for leaf in run.state.parameters.values())


def test_a_full_disk_leaves_the_checkpoint_before(experiment, undisturbed, monkeypatch, caplog):
    """A real write that fails: files may not grow beyond a few bytes. Its tracebacks are not logged."""
    save, limits = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(self, step, state, wer=None):
        if step == 8:
            self.wait()  # until that of step 4 is whole
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        save(self, step, state, wer)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", on_a_full_disk)
        try:
            with pytest.raises(RunError, match=r"can't be written.*that of step 4 is whole\. Free some space"):
                messages(experiment)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [record for record in caplog.records if record.exc_info]
    assert Checkpoints(experiment.run / "checkpoints", None).steps == [4]
    messages(experiment)
    assert losses(experiment.run) == undisturbed


def test_other_settings_are_refused_unless_accepted(experiment, begun):
    slower = dataclasses.replace(experiment.training, learning_rate=0.01)
    with pytest.raises(RunError, match=r"other settings \(training.learning_rate: 0.05 then, 0.01 now\); use those"):
        messages(dataclasses.replace(experiment, training=slower))
    messages(dataclasses.replace(experiment, training=slower, accept_changes=True, steps=6, workers=0, keep=1))
    rows = read_metrics(experiment.run / "metrics.jsonl")
    assert [row["changed"] for row in rows if row["kind"] == "settings"] == [{"training.learning_rate": 0.01}]
    assert len(losses(experiment.run)) == 6


def test_a_pattern_that_names_nothing_leaves_no_run(experiment):
    wrong = dataclasses.replace(experiment, training=dataclasses.replace(experiment.training, train_only="decoder"))
    with pytest.raises(
        ConfigError, match=r"^train_only: 'decoder' is found in no parameter's path; the paths are those"
    ):
        messages(wrong)
    assert not list(experiment.run.iterdir())


def test_settings_of_the_state_can_not_be_changed(experiment, begun):
    wider = dataclasses.replace(experiment.model, max_symbols_per_frame=3)
    with pytest.raises(
        RunError, match=r"model.max_symbols_per_frame: 10 then, 3 now\); use those, or another directory"
    ):
        messages(dataclasses.replace(experiment, model=wider, accept_changes=True))


def test_dev_manifests_have_different_labels_and_must_exist(experiment, speech, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_speech(tmp_path / "other", "dev", TEXTS[3:], seed=2)
    run = Run(dataclasses.replace(experiment, dev=(speech[1], other)), lambda sentence: None)
    assert {label: len(entries) for label, entries in run.dev.items()} == {str(speech[1]): 3, str(other): 3}
    with pytest.raises(RunError, match=r"--dev .*nowhere.jsonl: "):
        Run(dataclasses.replace(experiment, run=tmp_path / "run2", dev=(tmp_path / "nowhere.jsonl",)), lambda s: None)


def constant_loss(model, forward, batch, key, placement):
    return jnp.where(forward.lattice.frame_lengths > 0, 2.0 + 0 * forward.predicted.mean((1, 2)), 0.0)


def test_losses_given_from_outside_are_trained_and_reported(experiment):
    """And a run is resumed with the same ones."""
    given = (Loss("constant", 0.5, constant_loss), Loss("same", 1.0, constant_loss))
    Run(dataclasses.replace(experiment, steps=2), lambda message: None, given).train()
    rows = [row for row in read_metrics(experiment.run / "metrics.jsonl") if row["kind"] == "train"]
    assert [(row["loss"], row["loss_constant"], row["loss_same"]) for row in rows] == [(3.0, 2.0, 2.0)] * 2
    assert json.loads((experiment.run / "settings.json").read_text())["losses"] == {"constant": 0.5, "same": 1.0}
    with pytest.raises(RunError, match=r"other settings \(losses: "):
        Run(dataclasses.replace(experiment, steps=3), lambda message: None)
    with pytest.raises(RunError, match=r"losses\.constant: 0\.5 then, 0\.7 now"):
        changed = (given[0]._replace(weight=0.7), given[1])
        Run(dataclasses.replace(experiment, steps=3), lambda message: None, changed)


def test_a_fresh_model_expects_blank_as_often_as_it_occurs(experiment):
    model = start(experiment).model
    flat = jax.nn.softmax(model.joint.output.bias[...])
    assert math.isclose(flat[model.config.blank], BLANK_SHARE, abs_tol=1e-6)
    np.testing.assert_allclose(flat[:-1], (1 - BLANK_SHARE) / model.config.vocabulary, rtol=1e-5)


def test_starting_from_a_checkpoint_with_and_without_another_tokenizer(experiment, begun, speech, tmp_path):
    first = tmp_path / "first"
    export(experiment.run, first)
    again = dataclasses.replace(experiment, run=tmp_path / "again", init=first, steps=1, model=Experiment().model)
    run = Run(again, lambda sentence: None)
    weights, _, tokenizer, _ = checkpoint.load(first)
    for name, value in named_parameters(weights).items():
        np.testing.assert_array_equal(run.state.parameters[name], value)
    run.train()
    origin = checkpoint.load(again.run / "model")[3]
    assert origin["init"]["directory"] == "first" and origin["init"]["origin"]["step"] == 4 and origin["step"] == 1

    export(experiment.run, tmp_path / "mixed", mix_with=again.run / "model", mix_share=0.25)
    mixed, _, _, origin = checkpoint.load(tmp_path / "mixed")
    assert origin["step"] == 4 and origin["mixed"]["share"] == 0.25 and origin["mixed"]["origin"]["step"] == 1
    ours, later = (named_parameters(model) for model in (weights, checkpoint.load(again.run / "model")[0]))
    for name, value in named_parameters(mixed).items():
        np.testing.assert_allclose(value, 0.75 * ours[name] + 0.25 * later[name], rtol=1e-5, atol=1e-6)

    from nemojax.data.train_tokenizer import train as train_tokenizer

    (tmp_path / "other.model").write_bytes(train_tokenizer(TEXTS, 30))
    other = dataclasses.replace(again, run=tmp_path / "other", tokenizer=tmp_path / "other.model")
    run = Run(other, lambda sentence: None)
    assert run.config.vocabulary == 30 and run.tokenizer.size == 30 != len(tokenizer)
    old = named_parameters(weights)
    changed = {n for n, p in run.state.parameters.items() if p.shape != old[n].shape or not np.array_equal(p, old[n])}
    assert changed == {"prediction.embedding", "joint.output.kernel", "joint.output.bias"}
    run.train()


def test_an_unreadable_recording_is_reported_and_left_out(experiment, tmp_path):
    train = write_speech(tmp_path, "train", TEXTS * 2)
    (tmp_path / "train-3.wav").write_bytes(b"not audio")
    sentences = messages(dataclasses.replace(experiment, train=(str(train),), steps=8))
    assert any("train-3.wav" in sentence and "left out" in sentence for sentence in sentences)
    rows = read_metrics(experiment.run / "metrics.jsonl")
    assert any(row["kind"] == "data" and "train-3.wav" in row["message"] for row in rows)
