"""Measures how much audio the data pipeline prepares for training in an hour, against the number of worker processes.

    python -m experiments benchmark_data MANIFEST...

Batches are taken as fast as they come and thrown away, once those prepared ahead of time are used up. Audio counts as
it goes into batches, without padding. Without workers, the audio prepared in an hour of CPU time is measured too: it
does not depend on the machine's other load. A table goes to standard output; a row for each measurement is appended to
a file of JSON lines.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from nemojax.config import ModelConfig
from nemojax.data.corpus import Corpus, Source, load_corpus
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.train_tokenizer import texts_of, train
from nemojax.data.waveform import RECIPE, UNCHANGED
from nemojax.text.tokenizer import Tokenizer

WAVEFORMS = {"none": UNCHANGED, "recipe": RECIPE}


@dataclass(frozen=True)
class Settings:
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    workers: tuple[int, ...] = (0, 1, 2)
    """Worker processes, in each measurement."""
    waveforms: tuple[Literal["none", "recipe"], ...] = ("none", "recipe")
    """Augmentation in the workers."""
    batch_frames: int = 4000
    """Encoder frames in a batch."""
    tokenizer_size: int = 512
    """Pieces of the tokenizer, which is trained on the manifests."""
    seconds: float = 15.0
    """Minimum duration of each measurement."""
    seed: int = 0
    """Of the order of utterances and of augmentation."""
    output: Path = Path("benchmark_data.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.check_manifests(self.manifests)
        checks.at_least(0, self, "workers")


def measure_pipeline(corpus: Corpus, workers: int, waveform: str, settings: Settings) -> Row:
    from nemojax.data.pipeline import AHEAD, Pipeline

    config = ModelConfig()
    begin = time.perf_counter()
    plan = Plan(corpus, config, PlanConfig(settings.seed, settings.batch_frames), WAVEFORMS[waveform])
    audio_samples = padded_samples = batches = 0
    shapes: Counter[tuple[int, ...]] = Counter()
    with Pipeline(plan, workers=workers) as pipeline:
        next(pipeline)
        first_s = time.perf_counter() - begin
        for _ in range(workers * (AHEAD + 1)):
            next(pipeline)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        while not batches or time.perf_counter() - begin < settings.seconds:
            batch = next(pipeline)
            lengths = batch.sample_lengths
            audio_samples += int(lengths.sum()) - config.history_samples * int((lengths > 0).sum())
            padded_samples += batch.samples.size
            shapes[(*batch.samples.shape, batch.labels.shape[1])] += 1
            batches += 1
        seconds, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        unreadable = len(pipeline.unreadable)
    audio_s = audio_samples / config.features.sample_rate_hz
    return {
        "workers": workers,
        "waveform": waveform,
        "audio_hours_per_hour": round(audio_s / seconds, 1),
        "audio_hours_per_core_hour": None if workers else round(audio_s / cpu_s, 1),
        "batches_per_s": round(batches / seconds, 3),
        "first_batch_s": round(first_s, 2),
        "share_of_padding": round(1 - audio_samples / padded_samples, 3),
        "shapes": len(shapes),
        "unreadable": unreadable,
    }


def table(rows: Sequence[Row]) -> str:
    heads = ["workers", "waveform", "audio hours per hour", "per core hour", "batches per second", "first batch, s"]
    names = ["workers", "waveform", "audio_hours_per_hour", "audio_hours_per_core_hour"]
    names += ["batches_per_s", "first_batch_s"]
    return markdown(heads, [["" if row[name] is None else str(row[name]) for name in names] for row in rows], left=6)


def measure(settings: Settings, rows: Rows) -> None:
    tokenizer = Tokenizer(train(texts_of(settings.manifests), settings.tokenizer_size))
    corpus = load_corpus([Source(manifest) for manifest in settings.manifests], tokenizer, ModelConfig())
    print(corpus.report(), file=sys.stderr)
    common = {"batch_frames": settings.batch_frames, "corpus_hours": round(corpus.hours, 3)}
    for waveform, workers in tqdm(list(product(settings.waveforms, settings.workers)), disable=None):
        rows.add({**measure_pipeline(corpus, workers, waveform, settings), **common})


EXPERIMENT = Experiment(
    "benchmark_data", Settings, measure, __doc__, table, packages=("grain", "numpy", "soundfile", "soxr")
)
main = EXPERIMENT.main
