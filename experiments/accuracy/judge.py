"""Judges models on your own speech: error rates, case and punctuation, delay, speed, and the errors by word.

    python -m experiments judge MODEL MANIFEST... [--against MODEL...] [--output judged]
    python -m experiments judge runs/tuned/model dev.jsonl --against nvidia/nemotron-speech-streaming-en-0.6b
    python -m experiments judge MODEL datasets:openslr/librispeech_asr,clean,test --against nemo:MODEL.nemo

A model is a native checkpoint or a name on the hub; nemo:ARCHIVE and transformers:DIRECTORY run by their own libraries,
where these are installed. A manifest may be a data set of Hugging Face: datasets:NAME,SPLIT, or with a configuration
datasets:NAME,CONFIG,SPLIT. Each model transcribes each manifest at each look-ahead, and is compared with the first
model of nemojax on the same recordings. Models of nemojax stream a part of the recordings too: the delay of a word is
from its end (the manifest's `words`, or else the model's largest look-ahead) to the end of the chunk that shows its
text.

The directory of --output gets rows.jsonl, errors.jsonl (each error with its count, and its places in the audio) and
wer.svg. A table goes to standard output. Exit codes: 0, all done; 1, some recordings could not be scored; 2, the
command or a model is wrong.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.accuracy.contestants import Contestant, Name, Nemojax, Peer, Result, parse, timed
from experiments.accuracy.report import Bootstrap, bar, measures, significance
from experiments.accuracy.scoring import PACKAGES, EvaluationSet, Scored, read_sets, score_text, with_text
from experiments.accuracy.word_edits import Edit, by_word, edits, shown_words
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.hf_dataset import PREFIX, manifest_of
from experiments.harness.machine import device
from experiments.harness.output import drawing, markdown, open_for_writing, spread
from experiments.harness.rows import Row, Rows, distinct, write_line
from nemojax import metrics
from nemojax.audio.source import Recording
from nemojax.config import EVENTS
from nemojax.errors import AudioError, ConfigError
from nemojax.progress import AudioBar

ROWS, ERRORS, PLOT = "rows.jsonl", "errors.jsonl", "wer.svg"
WARM_UP = 4  # recordings that are transcribed before the clock starts


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint or a name on the hub; or nemo:ARCHIVE, or transformers:DIRECTORY."""
    manifests: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    """Manifests, or data sets as datasets:NAME,SPLIT."""
    against: tuple[str, ...] = ()
    """Further models."""
    output: Path = Path("judged")
    """Directory of the results, which is made."""
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those of the first model of nemojax."""
    normalizer: Literal["none", "plain", "whisper"] = "plain"
    """The form in which words and characters are compared."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights of nemojax's models."""
    batch_size: int = 16
    """Recordings side by side, in nemojax; the libraries of others transcribe one at a time."""
    stream_limit: int = 20
    """Maximum number of recordings of each manifest that nemojax streams; 0 for none."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 2000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    def check(self) -> None:
        checks.at_least(1, self, "batch_size", "limit", "resamples")
        checks.at_least(0, self, "stream_limit")
        if not self.manifests:
            raise ConfigError("name at least one manifest")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"--confidence must be between 0 and 1, not {self.confidence}")
        self.names()
        metrics.normalizer(self.normalizer)  # a missing package is an error now, not after hours of transcribing
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.output} can't be written: {error.strerror}") from None
        if (self.output / ROWS).exists():
            raise ConfigError(f"{self.output} has results already; name another --output")

    def names(self) -> list[Name]:
        """Returns the models, each once. Raises ConfigError where a library is not installed."""
        return list(dict.fromkeys(parse(text) for text in (self.model, *self.against)))


def load_all(settings: Settings) -> Iterator[tuple[Name, Contestant]]:
    """Loads one model after the other, those of nemojax first: they tell the look-aheads of the others."""
    from nemojax.recognition.recognizer import load

    names, lookaheads = settings.names(), settings.lookaheads
    for name in sorted(names, key=lambda one: one.library != "nemojax"):
        if name.library == "nemojax":
            contestant: Contestant = Nemojax(load(name.model, settings.dtype), settings.batch_size)
            lookaheads = lookaheads or contestant.lookaheads
        elif not lookaheads:
            raise ConfigError(f"name the --lookaheads of {name}, because no model of nemojax tells them")
        else:
            contestant = Peer(name, lookaheads)
        yield name, contestant


def scored_results(
    entries: Sequence[Recording | AudioError], results: dict[int, Result | AudioError], settings: Settings, rows: Rows
) -> tuple[list[Scored], list[tuple[str, Edit]]]:
    """Returns the scored utterances and their errors by word; recordings that failed are reported."""
    normalize = metrics.normalizer(settings.normalizer)
    scored, found = [], []
    for index, result in sorted(results.items()):
        if isinstance(result, AudioError):
            rows.report(result)
            continue
        entry = entries[index]
        assert isinstance(entry, Recording)
        reference = metrics.without_events(entry.text or "", EVENTS)
        scored.append(score_text(index, entry.name, reference, result.text, result.duration_s, normalize))
        found += [(entry.name, edit) for edit in edits(reference, shown_words(result.words))]
    return scored, found


def measure_one(
    name: Name, contestant: Contestant, evaluation_set: EvaluationSet, lookahead: int, settings: Settings, rows: Rows
) -> tuple[Row, list[Scored], list[Row]]:
    """Returns the row of a model on a set at a look-ahead, its scored utterances, and its errors by word."""
    from experiments.accuracy.streamed import measure_streamed, spoken_ends

    entries = [with_text(entry) for entry in evaluation_set.entries]
    timed(contestant, [entry for entry in entries if isinstance(entry, Recording)][:WARM_UP], lookahead)
    with AudioBar(f"{name}, {evaluation_set.label}, look-ahead {lookahead}") as progress:
        results, seconds = timed(contestant, entries, lookahead, progress.update)
    scored, found = scored_results(entries, results, settings, rows)
    audio_s = math.fsum(one.duration_s for one in scored)
    row: Row = {
        "model": str(name),
        "library": name.library,
        "manifest": str(evaluation_set.path),
        "label": evaluation_set.label,
        "lookahead": lookahead,
        "chunk_ms": 80.0 * (lookahead + 1),
        "normalizer": settings.normalizer,
        "utterances": len(scored),
        "failed": len(entries) - len(scored),
        "audio_s": round(audio_s, 3),
        "rtfx": round(audio_s / seconds, 3) if seconds else None,
        **measures(scored, Bootstrap(settings.confidence, settings.resamples, settings.seed)),
    }
    part = spread(scored, settings.stream_limit) if settings.stream_limit else []
    if isinstance(contestant, Nemojax) and part:
        ends = spoken_ends(contestant.recognizer, evaluation_set, part, settings.batch_size)
        row |= measure_streamed(contestant.recognizer, evaluation_set, part, lookahead, ends)
    return row, scored, by_word(found)


def measure(settings: Settings, rows: Rows) -> None:
    sets = read_sets([_manifest(text, settings.output) for text in settings.manifests], settings.limit, False)
    first: dict[tuple[str, int], list[Scored]] = {}
    bootstrap = Bootstrap(settings.confidence, settings.resamples, settings.seed)
    with open_for_writing(settings.output / ERRORS, "w") as errors:
        base_name = ""
        for name, contestant in load_all(settings):
            base_name = base_name or str(name)
            for evaluation_set in sets:
                for lookahead in dict.fromkeys(settings.lookaheads or contestant.lookaheads):
                    row, scored, words = measure_one(name, contestant, evaluation_set, lookahead, settings, rows)
                    base = first.setdefault((evaluation_set.label, lookahead), scored)
                    row |= {"against": base_name, **significance(base, scored, bootstrap)}
                    rows.add({**row, "device": device()})
                    place = {key: row[key] for key in ("model", "label", "lookahead")}
                    for word in words:
                        write_line(errors, {**place, **word})
    if rows.rows:
        plot(rows.rows, settings.output / PLOT)


def _manifest(text: str, output: Path) -> Path:
    return manifest_of(text, output) if text.startswith(PREFIX) else Path(text)


def table(rows: Sequence[Row]) -> str:
    """Shows rates in percent with their intervals, delays in milliseconds, and speeds."""

    def percent(measure: Row | None) -> str:
        if measure is None or measure["rate"] is None:
            return ""
        interval = "" if measure["low"] is None else f" [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"
        return f"{100 * measure['rate']:.1f}{interval}"

    lines = []
    for row in rows:
        delay, p_value = row.get("delay_ms"), row["p_value"]
        cells = [row["model"], row["label"], f"{row['chunk_ms']:.0f}", percent(row["wer"])]
        cells.append("" if p_value is None or row["model"] == row["against"] else f"{p_value:.3f}")
        cells += [percent(row[key]) for key in ("cer", "case_error", "punctuation_error")]
        cells.append("" if delay is None else f"{delay['mean']:.0f} ({delay['p90']:.0f})")
        lines.append([*cells, "" if row["rtfx"] is None else f"{row['rtfx']:.1f}"])
    heads = ["model", "manifest", "chunk, ms", "WER, %", "p", "CER, %", "case, %", "punctuation, %"]
    return markdown([*heads, "word delay, ms: mean (90 %)", "RTFx"], lines, left=2)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the WER of each model with its interval against the chunk, a panel for each manifest."""
    labels, models = distinct(rows, "label"), distinct(rows, "model")
    with drawing(path, 9, 0.8 + 3.0 * len(labels)) as figure:
        for axes, label in zip(figure.subplots(len(labels), 1, squeeze=False).flat, labels, strict=True):
            for number, model in enumerate(models):
                here = [row for row in rows if (row["label"], row["model"]) == (label, model) and row["wer"]["rate"]]
                here.sort(key=lambda row: row["chunk_ms"])
                ends = [[bar(row["wer"], end) for row in here] for end in ("low", "high")]
                rates, marker = [100 * row["wer"]["rate"] for row in here], "osD^vPX*"[number % 8]
                axes.errorbar([row["chunk_ms"] for row in here], rates, ends, marker=marker, capsize=3, label=model)
            ticks = distinct(rows, "chunk_ms")
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
            axes.set_xticks([], minor=True)
            axes.set_ylim(bottom=0)
            axes.set_title(label, fontsize=9)
            axes.grid(alpha=0.3)
        figure.supxlabel("chunk in ms", fontsize=10)
        figure.supylabel("WER in %", fontsize=10)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, loc="outside right upper")


EXPERIMENT = Experiment(
    "judge",
    Settings,
    measure,
    __doc__,
    table,
    packages=(*PACKAGES, "torch", "nemo_toolkit", "transformers"),
    rows_path=lambda settings: settings.output / ROWS,
)
main = EXPERIMENT.main
