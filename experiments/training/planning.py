"""The data of a run: its batches, and the recordings that it is evaluated on."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.harness.output import spread
from experiments.training.presets import Experiment
from experiments.training.run_directory import RunError
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording
from nemojax.config import ModelConfig
from nemojax.data.corpus import load_corpus
from nemojax.data.plan import Plan
from nemojax.data.replay import with_replay
from nemojax.errors import AudioError
from nemojax.text.tokenizer import Tokenizer


def plan_batches(experiment: Experiment, tokenizer: Tokenizer, config: ModelConfig, log: Callable[[str], None]) -> Plan:
    """Reads the training manifests and plans the batches. Raises ConfigError and DataError, see `load_corpus`."""
    with tqdm(desc="manifests", unit=" entries", disable=None, leave=False) as bar:

        def counted(entries: Iterable[Any]) -> Iterable[Any]:
            for entry in entries:
                bar.update()
                yield entry

        corpus = load_corpus(experiment.sources(), tokenizer, config, experiment.filters, counted)
    log(corpus.report())
    if experiment.replay:
        corpus = with_replay(corpus, len(experiment.train), experiment.replay_share)
    rows = math.lcm(jax.device_count() * experiment.training.accumulation, experiment.plan.rows_multiple)
    settings = dataclasses.replace(experiment.plan, rows_multiple=rows)
    return Plan(corpus, config, settings, experiment.waveform)


def dev_entries(path: Path, count: int) -> list[Recording | AudioError]:
    """Returns at most `count` entries of a dev manifest. Raises RunError for a manifest without a recording."""
    entries = expand_manifest(path)
    if not any(isinstance(entry, Recording) for entry in entries):
        raise RunError(f"--dev {path}: {entries[0] if entries else 'it is empty'}")
    return spread(entries, count)
