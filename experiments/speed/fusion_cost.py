"""Measures what a language model and phrases cost in greedy search: the time of the whole system, beside none.

    python -m experiments fusion_cost [MODEL] [--phrases 1 100 1000] [--streams 1 32]

Timed are recordings side by side (`transcribe`) and live streams, from samples to text, with everything compiled. The
cases take turns, so that the machine's other load falls on all alike, and each repeat gives a ratio to greedy search
beside it. The language model is estimated from random sentences of the model's pieces, as many as `sentences`; the
phrases are random, a list for each number, boosted by 2. A table goes to standard output; a row for each measurement is
appended to a file of JSON lines.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from experiments.speed.side_by_side import ratios, serve
from nemojax.bundled import SMALL

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

NONE, LM = "none", "language model"


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    audio: Path = SMALL / "example.ogg"
    """A recording of speech, for the cost depends on its labels."""
    phrases: tuple[int, ...] = (1, 100, 1000)
    """Numbers of phrases of a stream."""
    sentences: int = 2000
    """That the language model is estimated from; its order is 4."""
    streams: tuple[int, ...] = (1, 8)
    """Live streams, or recordings, side by side."""
    lookaheads: tuple[int, ...] = (13, 1)
    """Of live streams; of recordings, the first."""
    repeats: int = 7
    """Of every measurement."""
    seed: int = 0
    """Of sentences and phrases."""
    output: Path = Path("fusion_cost.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.at_least(1, self, "repeats", "phrases", "streams", "sentences")
        checks.at_least(0, self, "lookaheads")


def cases(recognizer: "Recognizer", settings: Settings) -> dict[str, "Recognizer"]:
    """Returns the recognizers that are compared, by what they have."""
    from nemojax.decoding.arpa import write_arpa
    from nemojax.decoding.estimation import estimate

    rng, count = np.random.default_rng(settings.seed), recognizer.tokenizer.size
    zipf = 1 / np.arange(1, count)
    draw = lambda size: rng.choice(np.arange(1, count), size, p=zipf / zipf.sum()).tolist()
    found = {NONE: recognizer}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lm.arpa"
        write_arpa(path, estimate([draw(30) for _ in range(settings.sentences)], count, 4))
        found[LM] = recognizer.with_language_model(path, 0.3)
    for number in settings.phrases:
        texts = [recognizer.tokenizer.decode(draw(4)).strip() or "x" for _ in range(number)]
        found[f"{number:,} phrases"] = recognizer.with_phrases([(text, 2.0) for text in texts])
    return found


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.audio.source import open_audio
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model, settings.dtype)
    samples = open_audio(settings.audio).read(10**8)
    compared = cases(recognizer, settings)
    whats = [("recordings", settings.lookaheads[0], streams) for streams in settings.streams]
    whats += [("streams", lookahead, streams) for lookahead in settings.lookaheads for streams in settings.streams]
    for what, lookahead, streams in tqdm(whats, disable=None, leave=False):
        seconds: dict[str, list[float]] = {case: [] for case in compared}
        for repeat in range(settings.repeats + 1):  # the first one compiles
            for case, one in compared.items():
                start = time.perf_counter()
                if what == "streams":
                    serve(one, lookahead, streams, samples)
                else:
                    one.transcribe([samples] * streams, lookahead, streams)
                if repeat:
                    seconds[case].append(round(time.perf_counter() - start, 6))
        for case, found in seconds.items():
            described = {"model": settings.model.name, "dtype": settings.dtype, "device": device()}
            measured = {"what": what, "lookahead": lookahead, "streams": streams, "case": case, "seconds": found}
            rows.add(described | measured)


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        times = ratios(rows, row, case=NONE)
        cells = [f"{row['model']} {row['dtype']}", row["what"], f"{row['lookahead']}", f"{row['streams']}", row["case"]]
        cells += [
            f"{1000 * median(row['seconds']):.1f}",
            f"{median(times):.3f}",
            f"{min(times):.3f} to {max(times):.3f}",
        ]
        lines.append(cells)
    return markdown(["model", "what", "look-ahead", "side by side", "with", "ms", "of greedy", "range"], lines, left=2)


EXPERIMENT = Experiment("fusion_cost", Settings, measure, __doc__, table)
main = EXPERIMENT.main
