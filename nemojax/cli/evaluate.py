"""`nemojax evaluate`: WER and CER of manifests, or of results that were written before."""

import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from tyro.conf import Positional, arg

from nemojax import metrics
from nemojax.audio.channels import EACH, Channel, parse_channel
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.manifest import Manifest, Request
from nemojax.audio.manifest_entry import parse_entry
from nemojax.audio.raw import SampleFormat, parse_raw
from nemojax.audio.shard_names import manifest_paths
from nemojax.audio.source import Recording
from nemojax.bundled import SMALL
from nemojax.checks import check_count, check_seconds
from nemojax.cli.model import check_beam
from nemojax.cli.model import load as load_model
from nemojax.cli.options import (
    EACH_ADVICE,
    MANIFESTS,
    Attention,
    BatchSize,
    Beam,
    ChannelText,
    Dtype,
    Json,
    Kernels,
    LanguageModel,
    LanguageModelWeight,
    Lookahead,
    Model,
    PhraseFile,
    Raw,
    Reproducible,
    ResetPrediction,
)
from nemojax.config import EVENTS
from nemojax.errors import AudioError, ConfigError, shown
from nemojax.metrics.set_scores import SetScores, table
from nemojax.progress import AudioBar
from nemojax.text.json_lines import json_line

if TYPE_CHECKING:  # importing jax takes seconds, and scoring results does not need it
    from nemojax.recognition.recognizer import Recognizer

Sets = Positional[
    Annotated[
        tuple[str, ...],
        arg(
            metavar="MANIFEST...",
            help="manifests with the texts to compare with; or results: JSON lines with pred_text beside text, as "
            "`nemojax transcribe --json` and NeMo write them, or the directory of `nemojax transcribe --output`, which "
            "are scored without a model.",
            help_behavior_hint="(required)",
        ),
    ]
]
Normalizer = Annotated[
    Literal["none", "plain", "whisper"],
    arg(
        help="the form in which texts are compared: as they are (none), in lower case without punctuation (plain), or "
        "by Whisper's rules for English (whisper)."
    ),
]


class Scored(NamedTuple):
    """A reference and its hypothesis."""

    reference: str
    hypothesis: str


def evaluate(
    sets: Sets,
    /,
    model: Model = SMALL,
    lookahead: Lookahead = None,
    batch_size: BatchSize = 8,
    normalizer: Normalizer = "plain",
    json: Json = False,
    dtype: Dtype = "float32",
    kernels: Kernels = "auto",
    attention: Attention = "auto",
    raw: Raw = None,
    channel: ChannelText = None,
    reset_prediction_after_s: ResetPrediction = None,
    reproducible: Reproducible = False,
    beam: Beam = None,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = None,
    phrases: PhraseFile = None,
) -> int:
    """Measure the word and character error rates of a model on manifests."""
    if not sets:
        raise ConfigError("name at least one manifest, or the results of one")
    check_count("--batch-size", batch_size)
    if reset_prediction_after_s is not None:
        check_seconds("--reset-prediction-after-s", reset_prediction_after_s, positive=True)
    layout, chosen = None if raw is None else parse_raw(raw), parse_channel(channel)
    if chosen == EACH:
        raise ConfigError(EACH_ADVICE)
    normalize = metrics.normalizer(normalizer)
    check_beam(beam, None, reset_prediction_after_s)
    options: dict[str, Any] = {
        "reproducible": reproducible,
        "beam": beam,
        "lm": lm,
        "lm_weight": lm_weight,
        "phrases": phrases,
    }
    load = cache(partial(load_model, model, dtype, kernels, attention, reset_prediction_after_s, **options))
    summaries = {}
    for name in sets:
        settings: dict[str, Any] = {"normalizer": normalizer}
        results: Iterator[Scored | AudioError]
        if (files := _result_files(name)) is not None:
            results = (result for file in files for result in read_results(file))
        else:
            recognizer = load()
            chosen_options = {"raw": raw, "channel": channel, "reset_prediction_after_s": reset_prediction_after_s}
            chosen_options |= {"beam": beam}
            settings |= {option: value for option, value in chosen_options.items() if value is not None}
            settings |= recognizer.graphs.settings
            settings |= {"model": str(model), "dtype": recognizer.dtype, "lookahead": recognizer.lookahead(lookahead)}
            results = transcribed(recognizer, name, lookahead, batch_size, layout, chosen)
        summaries[name] = _score(results, normalize)
        if json:
            fields = {"manifest": name, **summaries[name], **settings}
            print(json_line(fields, sys.stdout.encoding or "utf-8"), flush=True)
    if not json:
        print(table({shown(name): summary for name, summary in summaries.items()}))
    return 1 if any(summary["failed"] or not summary["utterances"] for summary in summaries.values()) else 0


def _score(results: Iterator[Scored | AudioError], normalize: Callable[[str], str]) -> dict[str, Any]:
    """Returns the summary of a set, and prints its errors."""
    scores = SetScores(normalize)
    for result in results:
        if isinstance(result, AudioError):
            print(f"error: {shown(str(result))}", file=sys.stderr)
            scores.failed += 1
        else:
            scores.add(*result)
    return scores.summary()


def transcribed(
    recognizer: "Recognizer",
    manifest: str,
    lookahead: int | None,
    batch_size: int,
    raw: SampleFormat | None = None,
    channel: Channel = None,
) -> Iterator[Scored | AudioError]:
    """Transcribes a manifest; yields the reference and the transcript of each line, or its error."""
    waiting: dict[int, Request] = {}
    events = {*EVENTS, *recognizer.config.text.events}

    def recordings() -> Iterator[Recording | AudioError]:
        requests = ((path, request) for path in manifest_paths(manifest) for request in Manifest(path).requests())
        for index, (path, request) in enumerate(requests):
            waiting[index] = request
            recording = request.recording
            if isinstance(recording, Recording) and recording.text is None:
                yield AudioError(f"{path}: line {request.number}: it has no text to compare with")
            else:
                yield recording

    with AudioBar("transcribed") as bar:
        results = recognizer.transcribe_each(
            recordings(), lookahead, batch_size, progress=bar.update, raw=raw, channel=channel
        )
        for index, result in results:
            recording = waiting.pop(index).recording
            if isinstance(result, AudioError):
                bar.clear()
                yield result
            elif isinstance(recording, Recording):
                yield Scored(metrics.without_events(recording.text or "", events), result.text)


def _result_files(name: str) -> list[str] | None:
    """Returns the files of results that a name stands for; None for a manifest to transcribe. Raises ConfigError."""
    path = Path(name)
    if path.is_dir():
        from nemojax.recognition.bulk import FAILURES, JOB, TRANSCRIPTS

        if (path / TRANSCRIPTS).is_file():
            return [str(path / TRANSCRIPTS), str(path / FAILURES)]
        if (path / JOB).is_file():
            raise ConfigError(f"the job in {name} is not complete; start it again with the same command first")
        raise ConfigError(f"{name} is a directory without the results of a job")
    if not name.endswith(MANIFESTS):
        raise ConfigError(f"{name} is not a manifest or results ({', '.join(MANIFESTS)}), and not a directory")
    paths = manifest_paths(name)
    for _, _, content in Manifest(paths[0]).contents():
        try:
            return [str(path) for path in paths] if _is_result(parse_entry(content)) else None
        except UnnamedAudioError:
            continue
    return None


def _is_result(fields: dict[str, Any]) -> bool:
    return "pred_text" in fields or ("line" in fields and ("tokens" in fields or "error" in fields))


def read_results(file: str) -> Iterator[Scored | AudioError]:
    """Yields the reference and the transcript of each result in a file, or its error.

    The reference is `reference`, or without that field `text`, as in the results of NeMo.
    """
    for number, _, content in Manifest(file).contents():
        where = f"{file}: line {number}"
        try:
            fields = parse_entry(content)
        except UnnamedAudioError as error:
            yield AudioError(f"{where}: {error}")
            continue
        reference, hypothesis = fields.get("reference", fields.get("text")), fields.get("pred_text")
        if isinstance(fields.get("error"), str) and hypothesis is None:
            yield AudioError(fields["error"])
        elif not isinstance(hypothesis, str):
            yield AudioError(f"{where}: it has no pred_text; evaluate the manifest instead")
        elif not isinstance(reference, str):
            yield AudioError(f"{where}: it has no text to compare with")
        else:
            yield Scored(metrics.without_events(reference, EVENTS), metrics.without_events(hypothesis, EVENTS))
