"""Measures how soon the end of an utterance is decided, and how often wrongly, over the silence that is asked for.

    python -m experiments utterance_ends MODEL MANIFEST... [--lookaheads 13 1] [--plot utterance_ends.svg]

The recordings of a manifest, each one utterance, are joined in any order into one stream, with pauses of faint noise.
An utterance begins with the first 10 ms, and ends with the last, whose energy is at most 20 dB below that of its
loudest. The model transcribes the stream once; the ends are decided from its labels, as in a stream.

For each threshold: the delay from an utterance's end to the decision, as a stream reports it, at the end of a chunk;
the share of utterances that were cut early, so that more of their labels followed; the share that was missed, where the
next utterance began before a decision. Utterances of which the model emitted nothing are left out. A table goes to
standard output; a row for each manifest, look-ahead and threshold is appended to a file of JSON lines.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from experiments.accuracy.scoring import PACKAGES, EvaluationSet, read_sets
from experiments.accuracy.word_times import RATE_HZ, sound_bounds
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, Rows
from nemojax.audio.source import read_all
from nemojax.errors import AudioError, ConfigError
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.text.transcript import Transcript, Utterance

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

PERCENTILES = (50, 90, 95)
NOISE = 1e-4  # of the pauses, -80 dB
LATE_S = 0.5  # after an utterance's end, in which its labels may still come


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    silence_ms: tuple[float, ...] = (80.0, 160.0, 240.0, 320.0, 400.0, 480.0, 640.0, 800.0, 1040.0, 1280.0, 1600.0)
    """Thresholds."""
    shortest_pause_s: float = 0.3
    """Between two recordings; drawn evenly up to the longest."""
    longest_pause_s: float = 3.0
    range_db: float = 20.0
    """How far below the loudest 10 ms an utterance begins and ends."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    output: Path = Path("utterance_ends.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Delay, early cuts and misses over the threshold; svg, png or pdf by its name."""
    seed: int = 0
    """Of the order of the recordings, and of the pauses."""

    def check(self) -> None:
        checks.check_manifests(self.manifests)
        checks.at_least(1, self, "limit")
        for silence_ms in self.silence_ms:
            EndOfUtterance(silence_ms)
        if not 0 <= self.shortest_pause_s <= self.longest_pause_s:
            raise ConfigError("--shortest-pause-s must be at least 0 and at most --longest-pause-s")


class Spoken(NamedTuple):
    """When an utterance was spoken, in seconds of its stream."""

    begin_s: float
    end_s: float


class Decided(NamedTuple):
    """What became of the utterances of a stream at one threshold."""

    utterances: int  # of which the model emitted something
    early: int  # cut before their last label
    missed: int  # the next one began before a decision
    delays_s: list[float]  # of the others that were not missed


def joined(recordings: Sequence[np.ndarray], settings: Settings) -> tuple[np.ndarray, list[Spoken]]:
    """Returns recordings in any order as one stream, with pauses between them, and when its utterances were spoken."""
    rng = np.random.default_rng(settings.seed)
    pieces: list[np.ndarray] = []
    spoken, count = [], 0
    for samples in (recordings[index] for index in rng.permutation(len(recordings))):
        begin_s, end_s = sound_bounds(samples, settings.range_db)
        speech = samples[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]
        pause_s = rng.uniform(settings.shortest_pause_s, settings.longest_pause_s)
        pause = (NOISE * rng.standard_normal(round(pause_s * RATE_HZ))).astype(np.float32)
        spoken.append(Spoken((count + len(pause)) / RATE_HZ, (count + len(pause) + len(speech)) / RATE_HZ))
        pieces += [pause, speech]
        count += len(pause) + len(speech)
    tail = (NOISE * rng.standard_normal(round(settings.longest_pause_s * RATE_HZ))).astype(np.float32)
    return np.concatenate([*pieces, tail]), spoken


def decided(
    spoken: Sequence[Spoken], utterances: Sequence[Utterance], emitted_s: Sequence[float], chunk_s: float
) -> Decided:
    """Compares the ends that were decided with the true ones; `emitted_s` are the times of labels."""
    report_s = lambda utterance: math.ceil(round(utterance.decided_s / chunk_s, 6)) * chunk_s
    found = Decided(0, 0, 0, [])
    for index, (begin_s, end_s) in enumerate(spoken):
        next_s = spoken[index + 1].begin_s if index + 1 < len(spoken) else math.inf
        last_s = max((at for at in emitted_s if begin_s <= at < min(end_s + LATE_S, next_s)), default=None)
        if last_s is None:
            continue
        ends = [one for one in utterances if begin_s <= one.begin_s and one.decided_s < next_s]
        early = any(one.decided_s <= last_s for one in ends)
        after = next((one for one in ends if one.decided_s > last_s), None)
        found.delays_s.extend([] if after is None else [report_s(after) - end_s])
        counts = found.utterances + 1, found.early + early, found.missed + (after is None)
        found = Decided(*counts, found.delays_s)
    return found


def with_ends(recognizer: "Recognizer", transcript: Transcript, silence_ms: float) -> Sequence[Utterance]:
    """Returns the utterances of labels that were transcribed before."""
    from nemojax.recognition.hypothesis import Hypothesis

    hypothesis = Hypothesis(recognizer.config, recognizer.tokenizer, end_of_utterance=EndOfUtterance(silence_ms))
    log_probs = [0.0] * len(transcript.tokens)
    update = hypothesis.append(list(transcript.tokens), list(transcript.frames), log_probs)
    return (update + hypothesis.finish(round(transcript.duration_s * RATE_HZ))).final


def summary(found: Decided) -> dict[str, Any]:
    """Returns what a row has of the ends at one threshold."""
    count = max(found.utterances, 1)
    delays = np.percentile(found.delays_s, PERCENTILES).round(3).tolist() if found.delays_s else None
    return {
        "utterances": found.utterances,
        "early": round(found.early / count, 4),
        "missed": round(found.missed / count, 4),
        "percentiles": PERCENTILES,
        "delay_s": delays,
    }


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    for evaluation_set in read_sets(settings.manifests, settings.limit, with_speakers=False):
        samples, spoken = joined(_recordings(evaluation_set, rows), settings)
        for lookahead in settings.lookaheads or recognizer.config.encoder.lookaheads:
            transcript = recognizer.transcribe(samples, lookahead)
            assert isinstance(transcript, Transcript)
            emitted_s = [frame * recognizer.config.frame_ms / 1000 for frame in transcript.frames]
            chunk_ms = recognizer.config.chunk_ms(lookahead)
            for silence_ms in settings.silence_ms:
                ends = with_ends(recognizer, transcript, silence_ms)
                rows.add(
                    {
                        "model": str(settings.model),
                        "label": evaluation_set.label,
                        "lookahead": lookahead,
                        "chunk_ms": chunk_ms,
                        "silence_ms": silence_ms,
                        "pauses_s": [settings.shortest_pause_s, settings.longest_pause_s],
                        **summary(decided(spoken, ends, emitted_s, chunk_ms / 1000)),
                    }
                )


def _recordings(evaluation_set: EvaluationSet, rows: Rows) -> list[np.ndarray]:
    found = []
    for entry in evaluation_set.entries:
        try:
            found.append(read_all(entry))
        except AudioError as error:
            rows.report(error)
    if not found:
        raise ConfigError(f"{evaluation_set.path}: it has no recording that can be read")
    return found


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        delays = ["", "", ""] if row["delay_s"] is None else [f"{delay:.2f} s" for delay in row["delay_s"]]
        shares = [f"{100 * row[name]:.1f} %" for name in ("early", "missed")]
        chunk, silence = f"{row['chunk_ms']:.0f} ms", f"{row['silence_ms']:.0f} ms"
        lines.append([row["label"], chunk, silence, str(row["utterances"]), *delays, *shares])
    heads = ["", "chunk", "silence", "utterances", "delay p50", "p90", "p95", "cut early", "missed"]
    return markdown(heads, lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots delay, early cuts and misses over the threshold, a line for each manifest and look-ahead."""
    with drawing(path, 9, 3.4) as figure:
        delay, early, missed = figure.subplots(1, 3)
        for key in dict.fromkeys((row["label"], row["lookahead"]) for row in rows):
            points = [row for row in rows if (row["label"], row["lookahead"]) == key]
            at = [row["silence_ms"] for row in points]
            name = f"{key[0]}, {points[0]['chunk_ms']:.0f} ms"
            delay.plot(at, [row["delay_s"][0] if row["delay_s"] else math.nan for row in points], ".-", label=name)
            early.plot(at, [100 * row["early"] for row in points], ".-")
            missed.plot(at, [100 * row["missed"] for row in points], ".-")
        for axes, title in ((delay, "median delay in s"), (early, "cut early, in %"), (missed, "missed, in %")):
            axes.set_title(title)
            axes.set_xlabel("silence asked for, in ms")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3)


EXPERIMENT = Experiment("utterance_ends", Settings, measure, __doc__, table, plot, packages=PACKAGES)
main = EXPERIMENT.main
