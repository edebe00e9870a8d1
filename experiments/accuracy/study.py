"""Measures accuracy against delay, and what it depends on: one model under several conditions, on the same recordings.

    python -m experiments compare_accuracy MODEL MANIFEST... [--study lookahead] [--plot accuracy.svg]
    python -m experiments compare_accuracy MODEL MANIFEST... --study lm-weight --lm lm.arpa
    python -m experiments compare_accuracy MODEL MANIFEST... --study boost --phrases names.txt --also beam=4

Every recording is streamed chunk by chunk. Measured for each condition: WER and CER with intervals; substitutions,
deletions and insertions; case and punctuation apart; whether the WER differs from that of the first condition (a paired
bootstrap), and how many labels differ; the delay of words, from a word's end to its final text; how often final text
was changed, which no search may do; how often the first word of a recording is wrong; and the real-time factor.

The file of --phrases has key words, as for `nemojax transcribe --phrases`; a condition's `boost` is a factor of their
boosts. Measured then, with intervals: the recall, which is the share of the spoken key words that is found, and false
alarms, which are key words that are written where they were not spoken, over 1,000 spoken words
(`experiments.accuracy.key_words`). --lm names the language model of conditions with an `lm_weight`.

A word's end is taken from the manifest (`words`, a list of [word, start, end] in seconds). Where it has none, it is the
end of the encoder frame of the word's last label in the model's own offline pass at its largest look-ahead. The delay
is that of waiting for audio; compute time is added on top. `experiments.accuracy.conditions` has the conditions and
studies.

With --references, NeMo and transformers transcribe the same recordings, whole, with the same weights (in the
environment of `make parity`). Results go to a table, and to a plot: of WER against delay with a line through the points
that none beats in both, or of WER and key words over beam width, weight and boost. A row for each manifest and
condition is appended to a file of JSON lines. Exit codes: 0, all done; 1, some recordings could not be scored; 2, the
command or the model is wrong.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
import tyro
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from experiments.accuracy import key_words
from experiments.accuracy.conditions import STUDIES, Condition, fitting, parse, with_left_context, with_search
from experiments.accuracy.key_words import KeyWordCounts, KeyWords, read_key_words
from experiments.accuracy.listening import (
    RATE_HZ,
    StreamedResult,
    TimedWord,
    changed,
    delays_s,
    grouped,
    joined,
    stream_group,
)
from experiments.accuracy.report import Bootstrap, measures, significance
from experiments.accuracy.scoring import PACKAGES, Scored, check_scoring, score_text
from experiments.accuracy.study_report import plot, table
from experiments.accuracy.utterances import Utterance, offline_ends, read
from experiments.harness.experiment import Experiment, Flag
from experiments.harness.machine import device
from experiments.harness.output import labels
from experiments.harness.rows import Row, Rows
from nemojax import metrics
from nemojax.errors import ConfigError
from nemojax.metrics import ErrorCounts, plain, total

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

Study = Literal[
    "lookahead",
    "left-context",
    "chunk",
    "dtype",
    "cache",
    "noise",
    "cold-start",
    "telephone",
    "level",
    "pause",
    "long-form",
    "beam",
    "lm-weight",
    "boost",
]


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    study: Study = "lookahead"
    """Conditions that differ in one thing; the others are compared with the first."""
    also: str | None = None
    """What each condition of the study has too, such as snr=5,beam=4."""
    conditions: tuple[str, ...] = ()
    """In place of a study: conditions such as lookahead=6,left=35."""
    lm: Path | None = None
    """The language model of conditions that have an lm_weight and name none."""
    phrases: Path | None = None
    """Key words, one on each line, with a boost after a tab where it has one; they are counted under each condition."""
    references: Flag = False
    """Also NeMo and transformers, at the look-aheads of conditions that differ in nothing else."""
    normalizer: Annotated[Literal["none", "plain", "whisper"], tyro.conf.arg(aliases=["--normaliser"])] = "plain"
    """The form in which words and characters are compared."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    output: Path = Path("compare_accuracy.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """WER against delay; svg, png or pdf by its name."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 2000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap and of the noise."""

    def check(self) -> None:
        check_scoring(self)
        metrics.normalizer(self.normalizer)  # a missing package is an error now, not after hours of transcribing
        if self.lm is not None and not self.lm.exists():
            raise ConfigError(f"--lm: there is no file {self.lm}")


class Result(NamedTuple):
    """A condition on a manifest, summed up over its groups of recordings."""

    scored: list[Scored]
    delays_s: list[float]
    revisions: int
    first_word: ErrorCounts
    seconds: float
    audio_s: float
    tokens: list[tuple[int, ...]]


def run_condition(
    recognizer: "Recognizer",
    utterances: Sequence[Utterance],
    ends: Sequence[list[TimedWord]],
    condition: Condition,
    normalize: Callable[[str], str],
    seed: int,
    progress: Callable[[], object],
) -> Result:
    """Streams and scores all utterances under a condition; `progress` is called after each group."""
    stream_group(recognizer, [np.zeros(RATE_HZ, np.float32)], Condition(condition.lookahead), None)  # compiles
    scored: list[Scored] = []
    first: list[ErrorCounts] = []
    delays: list[float] = []
    results: list[StreamedResult] = []
    for position, group in enumerate(grouped(range(len(utterances)), condition.group)):
        pieces = [changed(utterances[i].samples, condition, [seed, i]) for i in group]
        found = stream_group(recognizer, pieces, condition, utterances[group[0] - 1].samples)
        delays += _delays(found, [ends[i] for i in group], pieces, condition.pause)
        reference = " ".join(utterances[i].text for i in group)
        hypothesis = " ".join(one.text for one in found if one.text)
        duration_s = math.fsum(one.duration_s for one in found)
        name = utterances[group[0]].name
        scored.append(score_text(position, name, reference, hypothesis, duration_s, normalize))
        first.append(first_word(plain(utterances[group[0]].text), plain(found[0].text)))
        results += found
        progress()
    return Result(
        scored,
        delays,
        sum(one.revisions for one in results),
        total(first),
        math.fsum(one.seconds for one in results),
        math.fsum(one.duration_s for one in results),
        [one.tokens for one in results],
    )


def _delays(
    results: Sequence[StreamedResult], ends: Sequence[list[TimedWord]], pieces: Sequence[np.ndarray], pause_s: float
) -> list[float]:
    if len(results) == len(pieces):
        return [delay for one, words in zip(results, ends, strict=True) for delay in delays_s(one.out, words)]
    _, starts = joined(pieces, pause_s)
    shifted = [TimedWord(w.word, w.at_s + start) for words, start in zip(ends, starts, strict=True) for w in words]
    return delays_s(results[0].out, shifted)


def first_word(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts an error where the first word is wrong, or another word comes before it."""
    expected, found = reference.split()[:1], hypothesis.split()[:1]
    return ErrorCounts(int(expected != found), 0, 0, len(expected))


def summary(delays: Sequence[float]) -> Row | None:
    """Returns mean, median and 90th percentile in milliseconds; None of no delays."""
    if not delays:
        return None
    found = {"mean": statistics.fmean(delays), "p50": statistics.median(delays), "p90": float(np.quantile(delays, 0.9))}
    return {"words": len(delays), **{name: round(1000 * value, 1) for name, value in found.items()}}


def reference_results(
    settings: Settings, utterances: Sequence[Utterance], lookahead: int
) -> Iterator[tuple[str, list[Scored]]]:
    """Scores NeMo's and transformers' offline transcripts; yields each with its library's name."""
    from experiments.references.compare import load_references

    normalize = metrics.normalizer(settings.normalizer)
    for reference in load_references(settings.model):
        scored = []
        for position, utterance in enumerate(utterances):
            hypothesis, _ = reference.offline(utterance.samples, lookahead)
            duration_s = len(utterance.samples) / RATE_HZ
            scored.append(score_text(position, utterance.name, utterance.text, hypothesis.text, duration_s, normalize))
        yield reference.name, scored


# The command.


def chosen(settings: Settings, recognizer: "Recognizer") -> list[Condition]:
    """Returns the conditions to measure. Raises ConfigError where one does not fit the model or the settings."""
    study = STUDIES[settings.study](recognizer.config)
    texts = settings.conditions or [",".join(filter(None, [str(one), settings.also])) for one in study]
    found = list(dict.fromkeys(map(parse, texts)))
    if settings.also and settings.conditions:
        raise ConfigError(f"--also is for a study; give {settings.also} with each of --conditions")
    if settings.also and len(found) < len(study):
        raise ConfigError(f"--also {settings.also} can't be given: it is what the study {settings.study} compares")
    for condition in found:
        fitting(recognizer.config, condition.lookahead, condition.left)
        if condition.lm_weight and condition.lm is None and settings.lm is None:
            raise ConfigError(f"the condition {condition} needs a language model: name one with --lm FILE")
        if condition.boost and settings.phrases is None:
            raise ConfigError(f"the condition {condition} needs key words: name their file with --phrases FILE")
    if len({condition.group for condition in found}) > 1:
        raise ConfigError("conditions that are compared must have groups of one size")
    return found


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    normalize = metrics.normalizer(settings.normalizer)
    plain_model = load(settings.model)
    models = {("float32", "auto"): plain_model}
    conditions = chosen(settings, plain_model)
    listed = None if settings.phrases is None else read_key_words(settings.phrases)
    for condition in {(one.beam, one.lm, bool(one.lm_weight), one.boost): one for one in conditions}.values():
        with_search(plain_model, condition, settings.lm, listed)  # an error of any of them is an error now
    for label, path in labels(settings.manifests).items():
        utterances = read(path, settings.limit, rows.report)
        if not utterances:
            rows.report(f"{path}: none of its recordings can be scored")
            continue
        ends = offline_ends(plain_model, utterances)
        first: list[Scored] = []
        first_tokens: list[tuple[int, ...]] = []
        for condition in conditions:
            kind = condition.dtype, condition.cache
            if kind not in models:
                models[kind] = load(settings.model, condition.dtype, cache=condition.cache)
            recognizer = with_left_context(models[kind], condition.lookahead, condition.left)
            recognizer = with_search(recognizer, condition, settings.lm, listed)
            count = -(-len(utterances) // condition.group)
            with tqdm(desc=f"{label}, {condition}", total=count, disable=None, leave=False) as bar:
                result = run_condition(recognizer, utterances, ends, condition, normalize, settings.seed, bar.update)
            first, first_tokens = first or result.scored, first_tokens or result.tokens
            common = _common(settings, recognizer, condition) | {"manifest": str(path), "label": label}
            common |= {"device": device()}
            ours = {**common, "contender": "nemojax", **_accuracy(settings, result.scored, first)}
            ours |= {"key_words": None if listed is None else _key_words(settings, listed, result.scored, first)}
            rows.add({**ours, **_streaming(result), "labels": differing(result.tokens, first_tokens)})
            if settings.references and condition == Condition(condition.lookahead):
                for name, scored in reference_results(settings, utterances, condition.lookahead):
                    rows.add({**common, "contender": name, **_accuracy(settings, scored, result.scored)})


def _common(settings: Settings, recognizer: "Recognizer", condition: Condition) -> Row:
    return {
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "study": None if settings.conditions else settings.study,
        "condition": str(condition),
        **asdict(condition),
        "lm": str(condition.lm or settings.lm) if condition.lm_weight else None,
        "phrases": None if settings.phrases is None else str(settings.phrases),
        "chunk_ms": recognizer.config.chunk_ms(condition.lookahead),
        "normaliser": settings.normalizer,  # spelled as in earlier rows
        **{name: getattr(settings, name) for name in ("limit", "confidence", "resamples")},
    }


def _accuracy(settings: Settings, scored: Sequence[Scored], against: Sequence[Scored]) -> Row:
    bootstrap = Bootstrap(settings.confidence, settings.resamples, settings.seed)
    return {
        "utterances": len(scored),
        **measures(scored, bootstrap),
        **significance(against, scored, bootstrap),
    }


def _key_words(settings: Settings, listed: KeyWords, scored: Sequence[Scored], first: Sequence[Scored]) -> Row:
    def counts(utterances: Sequence[Scored]) -> list[KeyWordCounts]:
        return [key_words.count(one.reference, one.hypothesis, listed.words) for one in utterances]

    bootstrap = Bootstrap(settings.confidence, settings.resamples, settings.seed)
    return {"listed": len(listed.words), **key_words.summary(counts(scored), counts(first), bootstrap)}


def differing(tokens: Sequence[tuple[int, ...]], first: Sequence[tuple[int, ...]]) -> Row | None:
    """Counts the first condition's labels, those that differ (an edit distance), and the recordings with any of them.

    None where the two did not have the same recordings.
    """
    if len(tokens) != len(first):
        return None
    distances = [Levenshtein.distance(*pair) for pair in zip(tokens, first, strict=True)]
    changed = sum(distance > 0 for distance in distances)
    return {"total": sum(map(len, first)), "differing": sum(distances), "recordings": changed}


def _streaming(result: Result) -> Row:
    return {
        "delay_ms": summary(result.delays_s),
        "revisions": result.revisions,
        "first_word": {"rate": result.first_word.rate, "words": result.first_word.reference},
        "audio_s": round(result.audio_s, 3),
        "real_time_factor": round(result.seconds / result.audio_s, 5) if result.audio_s else None,
    }


EXPERIMENT = Experiment("compare_accuracy", Settings, measure, __doc__, table, plot, PACKAGES)
main = EXPERIMENT.main
