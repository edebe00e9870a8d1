"""`nemojax transcribe`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nemojax.audio.channels import EACH, Channel, parse_channel
from nemojax.audio.raw import SampleFormat, parse_raw
from nemojax.audio.source import AudioSource, Recording, open_audio, open_channels
from nemojax.bundled import SMALL
from nemojax.checks import check_count, check_seconds
from nemojax.cli.inputs import Input, channel_suffix, expand
from nemojax.cli.interrupts import Interrupts
from nemojax.cli.model import check_beam, check_confidence
from nemojax.cli.model import load as load_model
from nemojax.cli.options import (
    EACH_ADVICE,
    MANIFESTS,
    Attention,
    BatchSize,
    Beam,
    ChannelText,
    ConfidenceText,
    Dtype,
    EndOfUtteranceMs,
    Files,
    Format,
    Itn,
    Json,
    Kernels,
    LanguageModel,
    LanguageModelWeight,
    Live,
    Lookahead,
    Model,
    NBest,
    Output,
    PhraseFile,
    Raw,
    Reproducible,
    ResetPrediction,
    ShardText,
    Streaming,
    Vad,
)
from nemojax.cli.printer import Printer
from nemojax.errors import AudioError, ConfigError, shown
from nemojax.progress import AudioBar
from nemojax.recognition.end_of_utterance import EndOfUtterance, check_milliseconds
from nemojax.text.formats import CONFIDENT, DOCUMENTS, FORMATS, JSON, SEGMENTED, TXT
from nemojax.text.inverse import InverseNormalizer
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:  # importing jax takes seconds, and help or a wrong command should not wait for it
    from nemojax.recognition.recognizer import Recognizer


def transcribe(
    files: Files,
    /,
    model: Model = SMALL,
    lookahead: Lookahead = None,
    stream: Streaming = False,
    live: Live = False,
    batch_size: BatchSize = 8,
    json: Json = False,
    dtype: Dtype = "float32",
    kernels: Kernels = "auto",
    attention: Attention = "auto",
    output: Output = None,
    shard: ShardText = None,
    raw: Raw = None,
    channel: ChannelText = None,
    reset_prediction_after_s: ResetPrediction = None,
    reproducible: Reproducible = False,
    beam: Beam = None,
    n_best: NBest = None,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = None,
    phrases: PhraseFile = None,
    format: Format = None,
    confidence: ConfidenceText = None,
    end_of_utterance: EndOfUtteranceMs = None,
    itn: Itn = False,
    vad: Vad = False,
) -> int:
    """Transcribe recordings."""
    check_count("--batch-size", batch_size)
    if reset_prediction_after_s is not None:
        check_seconds("--reset-prediction-after-s", reset_prediction_after_s, positive=True)
    check_beam(beam, n_best, reset_prediction_after_s)
    if format is not None and format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, not {format!r}")
    if json and format not in (None, JSON):
        raise ConfigError(f"--json can't be combined with --format {format}")
    form = JSON if json else format or TXT
    if n_best is not None and output is None and form != JSON:
        raise ConfigError("--n-best needs --json or --output, whose results have room for it")
    if confidence is not None:
        check_confidence(confidence)
        if output is None and form not in CONFIDENT:
            raise ConfigError(f"--confidence needs --json, --format ctm or tsv, or --output: {form} has no confidences")
    loading: dict[str, Any] = {"reproducible": reproducible, "beam": beam, "n_best": n_best}
    loading |= {"confidence": confidence, "lm": lm, "lm_weight": lm_weight, "phrases": phrases}
    load = partial(load_model, model, dtype, kernels, attention, reset_prediction_after_s, **loading)
    if end_of_utterance is not None:
        check_milliseconds("--end-of-utterance", end_of_utterance)
        if output is None and form not in SEGMENTED:
            raise ConfigError(
                f"--end-of-utterance needs text, --json, --format stm, or --output: {form} has no utterances"
            )
    ends = None if end_of_utterance is None else EndOfUtterance(end_of_utterance)
    if (stream or live) and vad:
        raise ConfigError("--vad skips silence of recordings; it can't be combined with --stream or --live")
    if (stream or live) and itn and form == TXT and ends is None:
        raise ConfigError("--itn changes text that is final; with --stream or --live, add --end-of-utterance")
    if output is not None:
        if stream or live or json:
            raise ConfigError("--output can't be combined with --stream, --live or --json: its results are JSON lines")
        if channel == EACH:
            raise ConfigError(EACH_ADVICE)
        normalizer = InverseNormalizer() if itn else None
        job = partial(_transcribe_manifest, load, files, lookahead, batch_size, output, shard, raw, channel)
        return job(form if format else JSON, ends, vad, normalizer)
    if shard is not None:
        raise ConfigError("--shard is for a manifest with --output")
    if not files:
        raise ConfigError("name at least one file to transcribe, or - for standard input")
    opened = partial(_open, layout=None if raw is None else parse_raw(raw), channel=parse_channel(channel))
    named = len(files) > 1 or files[0].endswith(MANIFESTS) or channel == EACH
    if named and form in DOCUMENTS:
        raise ConfigError(f"--format {form} is for one recording; name one file, or give a manifest and --output")
    printer = Printer(form, named, InverseNormalizer() if itn else None)
    recognizer = load()
    lookahead = recognizer.lookahead(lookahead)
    options: dict[str, Any] = {} if ends is None else {"end_of_utterance": ends}
    if stream or live:
        if live:  # compile before the first chunk, not during it
            recognizer.stream(lookahead).push(np.zeros(recognizer.config.chunk_samples(lookahead), np.float32))
        with Interrupts() as interrupts:
            for given, source in _open_sources(files, opened):
                # standard input ends by itself, after what has arrived
                stopped = (lambda: False) if given.source == "-" else lambda: interrupts.ended
                opened_stream = recognizer.stream(lookahead, **options)
                printer.print_stream(given, source, opened_stream, live, stopped)
                if interrupts.ended:
                    break
    else:
        inputs: dict[int, Input] = {}  # without a result yet, by index

        def sources() -> Iterator[AudioSource | AudioError]:
            for index, (given, source) in enumerate(_open_sources(files, opened)):
                inputs[index] = given
                yield source
                if interrupts.ended:
                    return

        with (
            AudioBar("transcribed") as bar,
            Interrupts("-" in files) as interrupts,  # of files alone there is nothing to finish
        ):
            options |= {"vad": True} if vad else {}
            results = recognizer.transcribe_each(sources(), lookahead, batch_size, progress=bar.update, **options)
            for index, result in in_order(results):
                bar.clear()
                printer.print_result(inputs.pop(index), result)
    return interrupts.exit_code or printer.exit_code


def _transcribe_manifest(
    load: "Callable[[], Recognizer]",
    files: Sequence[str],
    lookahead: int | None,
    batch_size: int,
    output: Path,
    shard: str | None,
    raw: str | None,
    channel: str | None,
    form: str,
    end_of_utterance: EndOfUtterance | None,
    vad: bool,
    normalizer: InverseNormalizer | None,
) -> int:
    from nemojax.recognition import bulk
    from nemojax.recognition.exports import export

    if len(files) != 1 or not files[0].endswith(MANIFESTS):
        raise ConfigError(f"--output is for one manifest ({', '.join(MANIFESTS)}), not {', '.join(files) or 'nothing'}")
    layout, chosen = None if raw is None else parse_raw(raw), parse_channel(channel)
    place = bulk.Shard.parse(shard) if shard is not None else bulk.Shard.of_environment()
    recognizer = load()
    failed = False

    def report(error: AudioError) -> None:
        nonlocal failed
        failed = True
        print(f"error: {shown(str(error))}", file=sys.stderr)

    with AudioBar(f"shard {place.index} of {place.count}") as bar:
        outcome = bulk.transcribe_manifest(
            recognizer,
            Path(files[0]),
            output,
            lookahead,
            batch_size,
            place,
            bar.update,
            report,
            layout,
            chosen,
            end_of_utterance,
            vad,
            normalizer,
        )
    waiting = outcome.recordings - outcome.done
    where = f"{waiting} left to other processes" if waiting else f"results are in {output / bulk.TRANSCRIPTS}"
    if form != JSON and not waiting:
        where += f" and {export(output, form)}"
    print(f"{outcome.done} of {outcome.recordings} recordings are done, {outcome.failed} of them failed; {where}")
    return 1 if failed or (outcome.failed and not waiting) else 0


def _open(
    entry: str | Recording | AudioError, layout: SampleFormat | None, channel: Channel
) -> list[tuple[int | None, AudioSource]]:
    """Returns the audio of a file or of a line of a manifest; for `each`, that of its channels with their indices."""
    if channel != EACH:
        return [(None, open_audio(entry, raw=layout, channel=channel))]
    return list(enumerate(open_channels(entry, raw=layout)))


def _open_sources(
    files: Sequence[str], opened: Callable[[str | Recording | AudioError], list[tuple[int | None, AudioSource]]]
) -> Iterator[tuple[Input, AudioSource | AudioError]]:
    """Yields every recording with its source, or its error. A file is opened only when its turn comes."""
    for given in expand(files):
        try:
            for index, audio in opened(given.source):
                suffix = "" if index is None else channel_suffix(index)
                yield given._replace(name=given.name + suffix, channel=index), audio
        except AudioError as error:
            yield given, error


def in_order(
    results: Iterable[tuple[int, Transcript | AudioError]],
) -> Iterator[tuple[int, Transcript | AudioError]]:
    """Yields results in the order of their indices, each as soon as all before it are there."""
    held: dict[int, Transcript | AudioError] = {}
    due = 0
    for index, result in results:
        held[index] = result
        while due in held:
            yield due, held.pop(due)
            due += 1
