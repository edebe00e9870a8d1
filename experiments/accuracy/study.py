"""Accuracy against delay, and what it depends on: one model under several conditions, on the same recordings.

    python -m experiments compare_accuracy MODEL MANIFEST... [--study lookahead] [--plot accuracy.svg]

Every recording is streamed chunk by chunk. For each condition: WER and CER with intervals, substitutions, deletions and
insertions, case and punctuation apart, and whether the WER differs from that of the first condition (a paired
bootstrap); the delay of words, from a word's end to when its text is out; how often shown text was changed, which for
greedy decoding must be never; how often the first word of a recording is wrong; and the real-time factor.

A word's end is the manifest's (`words`, a list of [word, start, end] in seconds) or else, where it has none, that of
the model's own offline pass at its largest look-ahead: the end of the encoder frame that the word's last label came
with. The delay is that of waiting for audio; a machine's own time comes to it. `experiments.accuracy.conditions` has the
conditions and studies.

With --references, NeMo and transformers hear the same recordings, whole, on the same weights (in the environment of
`make parity`). Results go to a table and a plot (WER against delay; the line joins what nothing beats in both), a row
for each manifest and condition to JSON lines, after those that are there. Exit codes: 0, all is done; 1, some
recordings could not be scored; 2, the command or the model is wrong.
"""  # noqa: E501

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from experiments.accuracy.conditions import STUDIES, Condition, fitting, parse, with_left_context
from experiments.accuracy.evaluate import PACKAGES, Scored, score_text
from experiments.accuracy.listening import RATE_HZ, Heard, Said, delays_s, grouped, hear, joined, noisy
from experiments.accuracy.report import measures, significance
from experiments.accuracy.study_report import Row, plot, table
from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import labels, plot_format, spread, writable
from nemojax.audio.manifest import numbered_entries
from nemojax.audio.source import read_all
from nemojax.errors import AudioError, ConfigError
from nemojax.metrics import ErrorCounts, normalizer, plain, total
from nemojax.recognition.recognizer import Recognizer, load

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    study: Literal["lookahead", "left-context", "chunk", "dtype", "noise", "cold-start", "long-form"] = "lookahead"
    """Conditions that differ in one thing; the first is what the others are compared with."""
    conditions: tuple[str, ...] = ()
    """In place of a study: conditions such as lookahead=6,left=35."""
    references: Flag = False
    """NeMo and transformers too, at the look-aheads of conditions that differ in nothing else."""
    normaliser: Literal["none", "plain", "whisper"] = "plain"
    limit: int | None = None
    """At most so many recordings of each manifest, spread evenly over it."""
    output: Path = Path("compare_accuracy.jsonl")
    plot: Path | None = None
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def check(self) -> None:
        if not self.manifests:
            raise ConfigError("name at least one manifest")
        for name in ("resamples", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"--confidence must be between 0 and 1, not {self.confidence}")
        if self.plot is not None:
            plot_format(self.plot)


class Utterance(NamedTuple):
    """A recording with its text; `ends` are its words' ends where the manifest has them."""

    name: str
    text: str
    samples: np.ndarray
    ends: list[Said] | None


def read(path: Path, limit: int | None, report: Callable[[str], object]) -> list[Utterance]:
    lines, found = path.read_bytes().splitlines() if path.is_file() else [], []
    for number, entry in spread(numbered_entries(path), limit):
        if isinstance(entry, AudioError):
            report(str(entry))
            continue
        if entry.text is None:
            report(f"{entry.name}: its line in the manifest has no text to score against")
            continue
        try:
            samples = read_all(entry)
            found.append(Utterance(entry.name, entry.text, samples, _ends(json.loads(lines[number - 1]))))
        except (AudioError, ValueError) as error:
            report(str(error))
    return found


def _ends(line: dict[str, Any]) -> list[Said] | None:
    words = line.get("words")
    if words is None:
        return None
    try:
        return [Said(str(word), float(end)) for word, _, end in words]
    except (TypeError, ValueError):
        raise ValueError(f"`words` must be a list of [word, start, end], not {str(words)[:60]!r}") from None


def offline_ends(recognizer: Recognizer, utterances: Sequence[Utterance]) -> list[list[Said]]:
    lookahead = max(recognizer.config.encoder.lookaheads)
    missing = [index for index, utterance in enumerate(utterances) if utterance.ends is None]
    transcripts = recognizer.transcribe([utterances[index].samples for index in missing], lookahead)
    found = {i: [Said(w.text, w.end_s) for w in t.words] for i, t in zip(missing, transcripts, strict=True)}
    return [found.get(index, u.ends or []) for index, u in enumerate(utterances)]


class Result(NamedTuple):
    """A condition on a manifest: what was said of each group, and when."""

    scored: list[Scored]
    delays_s: list[float]
    revisions: int
    first_word: ErrorCounts
    seconds: float
    audio_s: float


def listen(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    ends: Sequence[list[Said]],
    condition: Condition,
    normalise: Callable[[str], str],
    seed: int,
    progress: Callable[[], object],
) -> Result:
    groups, delays, heard_all = grouped(range(len(utterances)), condition.group), [], []
    scored, first = [], []
    hear(recognizer, [np.zeros(RATE_HZ, np.float32)], Condition(condition.lookahead), None)  # compiled
    for position, group in enumerate(groups):
        pieces = [noisy(utterances[i].samples, condition.snr, [seed, i]) for i in group]
        heard = hear(recognizer, pieces, condition, utterances[group[0] - 1].samples)
        delays += _delays(heard, [ends[i] for i in group], pieces)
        reference = " ".join(utterances[i].text for i in group)
        hypothesis = " ".join(one.text for one in heard if one.text)
        duration_s = math.fsum(one.duration_s for one in heard)
        name = utterances[group[0]].name
        scored.append(score_text(position, name, reference, hypothesis, duration_s, normalise))
        first.append(first_word(plain(utterances[group[0]].text), plain(heard[0].text)))
        heard_all += heard
        progress()
    return Result(
        scored,
        delays,
        sum(heard.revisions for heard in heard_all),
        total(first),
        math.fsum(heard.seconds for heard in heard_all),
        math.fsum(heard.duration_s for heard in heard_all),
    )


def _delays(heard: Sequence[Heard], ends: Sequence[list[Said]], pieces: Sequence[np.ndarray]) -> list[float]:
    if len(heard) == len(pieces):
        return [delay for one, there in zip(heard, ends, strict=True) for delay in delays_s(one.out, there)]
    _, starts = joined(pieces)
    shifted = [Said(w.word, w.at_s + start) for there, start in zip(ends, starts, strict=True) for w in there]
    return delays_s(heard[0].out, shifted)


def first_word(reference: str, hypothesis: str) -> ErrorCounts:
    """Whether the first word is wrong, or there is something before it."""
    expected, said = reference.split()[:1], hypothesis.split()[:1]
    return ErrorCounts(int(expected != said), 0, 0, len(expected))


def summary(values: Sequence[float]) -> Row | None:
    if not values:
        return None
    found = {"mean": statistics.fmean(values), "p50": statistics.median(values), "p90": float(np.quantile(values, 0.9))}
    return {"words": len(values), **{name: round(1000 * value, 1) for name, value in found.items()}}


# The references.


def reference_results(
    settings: Settings, recognizer: Recognizer, utterances: Sequence[Utterance], lookahead: int
) -> Iterator[tuple[str, list[Scored]]]:
    """What NeMo and transformers make of the whole recordings."""
    from experiments.references.compare import load_references

    normalise = normalizer(settings.normaliser)
    for reference in load_references(settings.model):
        scored = []
        for position, utterance in enumerate(utterances):
            heard, _ = reference.offline(utterance.samples, lookahead)
            duration_s = len(utterance.samples) / RATE_HZ
            scored.append(score_text(position, utterance.name, utterance.text, heard.text, duration_s, normalise))
        yield reference.name, scored


# The command.


def chosen(settings: Settings, recognizer: Recognizer) -> list[Condition]:
    """Raises ConfigError where a condition does not fit the model."""
    found = [parse(text) for text in settings.conditions] or STUDIES[settings.study](recognizer.config)
    for condition in found:
        fitting(recognizer.config, condition.lookahead, condition.left)
    if len({condition.group for condition in found}) > 1:
        raise ConfigError("conditions that are compared must have groups of one size")
    return list(dict.fromkeys(found))


def run(settings: Settings) -> int:
    settings.check()
    normalise = normalizer(settings.normaliser)
    models = {"float32": load(settings.model)}
    conditions = chosen(settings, models["float32"])
    errors: list[str] = []

    def report(error: str) -> None:
        tqdm.write(f"error: {error}", file=sys.stderr)
        errors.append(error)

    rows: list[Row] = []
    with ExitStack() as stack:
        output = stack.enter_context(writable(settings.output, "a"))
        for label, path in labels(settings.manifests).items():
            utterances = read(path, settings.limit, report)
            if not utterances:
                report(f"{path}: none of its recordings can be scored")
                continue
            ends = offline_ends(models["float32"], utterances)
            first: list[Scored] = []
            for condition in conditions:
                if condition.dtype not in models:
                    models[condition.dtype] = load(settings.model, condition.dtype)
                recognizer = with_left_context(models[condition.dtype], condition.lookahead, condition.left)
                count = -(-len(utterances) // condition.group)
                with tqdm(desc=f"{label}, {condition}", total=count, disable=None, leave=False) as bar:
                    result = listen(recognizer, utterances, ends, condition, normalise, settings.seed, bar.update)
                first = first or result.scored
                rows.append(_row(settings, path, label, "nemojax", condition, recognizer, result.scored, first, result))
                _write(output, rows[-1])
                if settings.references and condition == Condition(condition.lookahead):
                    for name, scored in reference_results(settings, recognizer, utterances, condition.lookahead):
                        rows.append(_row(settings, path, label, name, condition, recognizer, scored, result.scored))
                        _write(output, rows[-1])
    print(table(rows))
    if settings.plot and rows:
        plot(rows, settings.plot)
    return 1 if errors else 0


def _row(
    settings: Settings,
    path: Path,
    label: str,
    contender: str,
    condition: Condition,
    recognizer: Recognizer,
    scored: Sequence[Scored],
    against: Sequence[Scored],
    result: Result | None = None,
) -> Row:
    statistics_of = (None, settings.confidence, settings.resamples, settings.seed)
    row: Row = {
        "experiment": "compare_accuracy",
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "manifest": str(path),
        "label": label,
        "study": None if settings.conditions else settings.study,
        "contender": contender,
        "condition": str(condition),
        **asdict(condition),
        "chunk_ms": recognizer.config.chunk_ms(condition.lookahead),
        "utterances": len(scored),
        **{name: getattr(settings, name) for name in ("normaliser", "limit", "confidence", "resamples", "seed")},
        **measures(scored, *statistics_of),
        **significance(against, scored, *statistics_of),
    }
    if result is not None:
        row |= {
            "delay_ms": summary(result.delays_s),
            "revisions": result.revisions,
            "first_word": {"rate": result.first_word.rate, "words": result.first_word.reference},
            "audio_s": round(result.audio_s, 3),
            "real_time_factor": round(result.seconds / result.audio_s, 5) if result.audio_s else None,
        }
    return row | {"device": device(), **machine(PACKAGES)}


def _write(output: Any, row: Row) -> None:
    output.write(json.dumps(row, ensure_ascii=False, default=lambda counts: counts._asdict()) + "\n")
    output.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "compare_accuracy", __doc__, arguments)
