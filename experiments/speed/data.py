"""How much audio the data pipeline makes ready for training in an hour, against worker processes.

    python -m experiments benchmark_data MANIFEST...

Batches are taken as fast as they come and thrown away, after those made ahead of time are used up. Audio counts
as it goes into batches, padding apart. Without workers, what one core does in an hour of its time is given too:
that does not depend on what else the machine does. Results are JSON lines, and a table at the end.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from experiments.harness.command import command
from experiments.harness.machine import machine
from nemojax.config import ModelConfig
from nemojax.data.corpus import Corpus, Source, load_corpus
from nemojax.data.pipeline import AHEAD, Pipeline
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.train_tokenizer import texts_of, train
from nemojax.data.waveform import RECIPE, UNCHANGED
from nemojax.text.tokenizer import Tokenizer

PACKAGES = ("grain", "numpy", "soundfile", "soxr")
WAVEFORMS = {"none": UNCHANGED, "recipe": RECIPE}


@dataclass(frozen=True)
class Settings:
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    workers: tuple[int, ...] = (0, 1, 2)
    waveforms: tuple[Literal["none", "recipe"], ...] = ("none", "recipe")
    """Augmentation in the workers."""
    batch_frames: int = 4000
    tokenizer_size: int = 512
    """Pieces of the tokenizer, which is trained on the manifests."""
    seconds: float = 15.0
    """Each measurement takes at least so long."""
    seed: int = 0
    output: Path = Path("benchmark_data.jsonl")


def measure(corpus: Corpus, workers: int, waveform: str, settings: Settings) -> dict[str, Any]:
    config = ModelConfig()
    begin = time.perf_counter()
    plan = Plan(corpus, config, PlanConfig(settings.seed, settings.batch_frames), WAVEFORMS[waveform])
    heard = padded = batches = 0
    shapes: Counter[tuple[int, int, int]] = Counter()
    with Pipeline(plan, workers=workers) as pipeline:
        next(pipeline)
        first_s = time.perf_counter() - begin
        for _ in range(workers * (AHEAD + 1)):
            next(pipeline)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < settings.seconds:
            batch = next(pipeline)
            lengths = batch.sample_lengths
            heard += int(lengths.sum()) - config.history_samples * int((lengths > 0).sum())
            padded += batch.samples.size
            shapes[(*batch.samples.shape, batch.labels.shape[1])] += 1
            batches += 1
        seconds, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        unreadable = len(pipeline.unreadable)
    heard_s = heard / config.features.sample_rate_hz
    return {
        "workers": workers,
        "waveform": waveform,
        "audio_hours_per_hour": round(heard_s / seconds, 1),
        "audio_hours_per_core_hour": None if workers else round(heard_s / cpu_s, 1),
        "batches_per_s": round(batches / seconds, 3),
        "first_batch_s": round(first_s, 2),
        "share_of_padding": round(1 - heard / padded, 3),
        "shapes": len(shapes),
        "unreadable": unreadable,
    }


def table(results: list[dict[str, Any]]) -> str:
    heads = ["workers", "waveform", "audio hours per hour", "per core hour", "batches per second", "first batch, s"]
    names = [
        "workers",
        "waveform",
        "audio_hours_per_hour",
        "audio_hours_per_core_hour",
        "batches_per_s",
        "first_batch_s",
    ]
    rows = [[("" if row[name] is None else str(row[name])) for name in names] for row in results]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows])


def run(settings: Settings) -> int:
    tokenizer = Tokenizer(train(texts_of(settings.manifests), settings.tokenizer_size))
    corpus = load_corpus([Source(manifest) for manifest in settings.manifests], tokenizer, ModelConfig())
    print(corpus.report(), file=sys.stderr)
    results = []
    same = {"seed": settings.seed, "batch_frames": settings.batch_frames, "corpus_hours": round(corpus.hours, 3)}
    with settings.output.open("a") as file:
        for waveform, workers in tqdm(list(product(settings.waveforms, settings.workers)), disable=None):
            results.append({**measure(corpus, workers, waveform, settings), **same, **machine(PACKAGES)})
            file.write(json.dumps(results[-1]) + "\n")
            file.flush()
    print(table(results))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "benchmark_data", __doc__, arguments)
