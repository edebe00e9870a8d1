"""Compares nemojax's labels with those of NeMo and transformers, which get the model's weights from `convert`.

    python -m experiments compare_references MODEL MANIFEST... [--lookaheads 13 6 1 0] [--limit N]

The native checkpoint is written for both (`to-nemo`, `to-hf`), and loaded by NeMo's `restore_from` and transformers'
`from_pretrained`. They transcribe every recording alone, in float32, each with its own decoder. At each look-ahead,
text and labels are compared:

- nemojax's `transcribe`, and its `stream` chunk by chunk, with a reference's output for the whole recording;
- nemojax's `stream` with the references' streams. Those take whole chunks only, so all streams get the recording with
  silence to the end of a chunk. NeMo's stream is left out at look-ahead 0, where it is known to differ from NeMo's own
  offline output (it adds log-mel frames of zeros before the second chunk). It gets log-mel frames that were computed
  offline, because NeMo counts one more in a stream.

NeMo removes spaces before punctuation from its tokenizer's text; for the comparison they are removed from nemojax's
text too. Where labels differ, the gap is that between the reference's logits of the two labels at the first choice that
differs. A gap of at most `agreement.NEAR_TIE` is a near-tie: rounding alone may make the difference.

A table and all differences go to standard output; a row for each manifest, look-ahead and pair of modes is appended to
a file of JSON lines. It needs the environment of `make parity`. Exit codes: 0, no differences but near-ties; 1, another
difference, or a recording could not be compared; 2, the command or the model is wrong.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
import tyro
from tqdm import tqdm

from convert.errors import ConvertError, reason
from experiments.harness import checks
from experiments.harness.experiment import PACKAGES, Experiment
from experiments.harness.machine import device
from experiments.harness.output import spread
from experiments.harness.rows import Row, Rows
from experiments.references import nemo_model
from experiments.references.agreement import (
    NEAR_TIE,
    Comparison,
    Difference,
    Hypothesis,
    listing,
    parting,
    table,
    tally,
)
from experiments.references.nemo_model import Nemo
from experiments.references.traces import Chunk, Decoding
from experiments.references.transformers_model import Transformers
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.config import ModelConfig
from nemojax.errors import AudioError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

REFERENCES = ("sentencepiece", "torch", "nemo_toolkit", "transformers")
NOTE = (
    "Streams are compared on recordings with silence to the end of a chunk, which the references need; NeMo's not at "
    "look-ahead 0, where it is known to differ from NeMo's own offline output."
)
Output = tuple[Hypothesis, Callable[[], Decoding]]  # with a function that decodes again and keeps all logits


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    output: Path = Path("compare_references.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.check_manifests(self.manifests)
        checks.at_least(1, self, "limit")
        checks.check_installed("torch", "nemo", "transformers")


# The references.


class Reference(Protocol):
    """A library's model."""

    name: str
    blank: int

    def shown(self, text: str) -> str:
        """Returns a tokenizer's text, with its spaces before punctuation, in the form that the library shows."""

    def offline(self, samples: np.ndarray, lookahead: int) -> Output:
        """Transcribes a whole recording."""

    def stream(self, samples: np.ndarray, lookahead: int) -> Output | None:
        """Transcribes the whole chunks of a recording; None where the library's stream is no reference."""


class NemoReference:
    name = "NeMo"

    def __init__(self, archive: Path):
        from nemo.utils import logging

        logging.setLevel(logging.ERROR)  # other messages would go to standard output
        self._nemo = Nemo(nemo_model.load(archive))
        self.blank = self._nemo.blank

    def shown(self, text: str) -> str:
        return self._nemo.tidied(text)

    def offline(self, samples: np.ndarray, lookahead: int) -> Output:
        encoded = self._nemo.offline(samples, lookahead)["encoder"]
        tokens, frames, text = self._nemo.decode(encoded)
        return Hypothesis(text, tuple(tokens), tuple(frames)), lambda: self._nemo.double_loop(encoded)

    def stream(self, samples: np.ndarray, lookahead: int) -> Output | None:
        if lookahead == 0:
            return None
        chunks = self._nemo.stream(self._nemo.log_mel(samples), lookahead)
        tokens = self._nemo.decode_stream(chunks)
        text = self.shown(self._nemo.model.tokenizer.ids_to_text(tokens))
        return Hypothesis(text, tuple(tokens), None), lambda: self._nemo.double_loop(_encoded(chunks))


class TransformersReference:
    name = "transformers"

    def __init__(self, directory: Path):
        import torch
        from transformers import AutoModelForRNNT, AutoProcessor

        # by default it computes in the file's type; eager attention gives NaN
        model = AutoModelForRNNT.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa").eval()
        processor = AutoProcessor.from_pretrained(directory)
        self._tokenizer, self._transformers = processor.tokenizer, Transformers(model, processor.feature_extractor)
        self.blank = self._transformers.blank

    def shown(self, text: str) -> str:
        return text

    def offline(self, samples: np.ndarray, lookahead: int) -> Output:
        decode = lambda: self._transformers.double_loop(self._transformers.offline(samples, lookahead)["encoder"])
        return self._generated(samples, lookahead, streaming=False), decode

    def stream(self, samples: np.ndarray, lookahead: int) -> Output | None:
        def decode() -> Decoding:
            log_mel = self._transformers.offline(samples, lookahead)["log_mel"]
            return self._transformers.double_loop(_encoded(self._transformers.stream(log_mel, lookahead)))

        return self._generated(samples, lookahead, streaming=True), decode

    def _generated(self, samples: np.ndarray, lookahead: int, streaming: bool) -> Hypothesis:
        tokens, frames = self._transformers.generate(samples, lookahead, streaming)
        # as its processor does: repeated labels are not merged
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, group_tokens=False)
        return Hypothesis(text, tuple(tokens), tuple(frames))


def _encoded(chunks: Sequence[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.trace["encoder"] for chunk in chunks])


def load_references(model: Path) -> list[Reference]:
    """Loads NeMo's and transformers' model with the weights of a native checkpoint.

    Raises:
      CheckpointError: `model` is not a checkpoint.
      ConfigError: a reference is not installed.
      ConvertError: a reference can't express the model, or does not load what is written for it.
    """
    checks.check_installed("torch", "nemo", "transformers")
    import torch

    from convert.huggingface import checkpoint as huggingface
    from convert.nemo import checkpoint as nemo

    torch.set_num_threads(1)  # more are slower for one frame at a time
    with tempfile.TemporaryDirectory(prefix="nemojax-") as name:
        archive, directory = Path(name, "model.nemo"), Path(name, "huggingface")
        nemo.write(model, archive)
        huggingface.write(model, directory)
        return [_loaded(NemoReference, archive), _loaded(TransformersReference, directory)]


def _loaded(kind: type[NemoReference] | type[TransformersReference], path: Path) -> Reference:
    try:
        return kind(path)
    except Exception as error:  # the libraries' errors have no common type
        raise ConvertError(f"{kind.name} does not load what `convert` writes for it: {reason(error)}") from error


# The comparison.


def read_recordings(
    manifest: Path, limit: int | None, config: ModelConfig, report: Callable[[AudioError], object]
) -> list[tuple[str, np.ndarray]]:
    """Reads names and samples; recordings that can't be compared are reported and left out."""
    found = []
    for entry in spread(expand_manifest(manifest), limit):
        if isinstance(entry, AudioError):
            report(entry)
            continue
        try:
            samples = read_all(entry)
        except AudioError as error:
            report(error)
            continue
        if config.encoder_frames(len(samples)):
            found.append((entry.name, samples))
        else:
            report(AudioError(f"{entry.name}: {len(samples)} samples; the references need one log-mel frame"))
    return found


def whole_chunks(samples: np.ndarray, config: ModelConfig, lookahead: int) -> np.ndarray:
    """Pads samples with silence to the end of a chunk."""
    return np.pad(samples, (0, -(len(samples) + config.history_samples) % config.chunk_samples(lookahead)))


def streamed(recognizer: "Recognizer", samples: np.ndarray, lookahead: int) -> Hypothesis:
    """Transcribes samples with nemojax's stream, chunk by chunk."""
    stream = recognizer.stream(lookahead)
    for begin in range(0, len(samples), stream.chunk_samples):
        stream.push(samples[begin : begin + stream.chunk_samples])
    transcript = stream.finish()
    return Hypothesis(stream.text, transcript.tokens, transcript.frames)


def compare(
    recognizer: "Recognizer",
    references: Sequence[Reference],
    recordings: Sequence[tuple[str, np.ndarray]],
    lookahead: int,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Comparison]:
    """Compares recordings at a look-ahead, one by one; `progress` is called after each.

    Spaces before punctuation stay in nemojax's text, as its tokenizer has them, and `Reference.shown` follows NeMo.
    """
    text = dataclasses.replace(recognizer.config.text, join_punctuation=False)
    recognizer = recognizer.with_config(dataclasses.replace(recognizer.config, text=text))
    transcripts = recognizer.transcribe([samples for _, samples in recordings], lookahead)
    assert isinstance(transcripts, list)
    for (name, samples), transcript in zip(recordings, transcripts, strict=True):
        padded = whole_chunks(samples, recognizer.config, lookahead)
        offline = Hypothesis(transcript.text, transcript.tokens, transcript.frames)
        stream, padded_stream = (streamed(recognizer, x, lookahead) for x in (samples, padded))
        for reference in references:
            whole, chunks = reference.offline(samples, lookahead), reference.stream(padded, lookahead)
            pairs = [("offline", "offline", offline, whole), ("offline", "stream", stream, whole)]
            pairs += [("stream", "stream", padded_stream, chunks)] if chunks else []
            for mode, our_mode, ours, theirs in pairs:
                difference = compare_one(ours, theirs, reference)
                labels = len(theirs[0].tokens)
                yield Comparison(reference.name, mode, our_mode, lookahead, name, labels, difference)
        progress()


def compare_one(ours: Hypothesis, theirs: Output, reference: Reference) -> Difference | None:
    """Returns None where text and labels are the same."""
    (hypothesis, decode), shown = theirs, reference.shown(ours.text)
    if shown == hypothesis.text and ours.tokens == hypothesis.tokens:
        return None
    return Difference(shown, hypothesis.text, parting(ours, hypothesis, decode(), reference.blank))


# The command.


def measure(settings: Settings, rows: Rows) -> int:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    requested = settings.lookaheads or recognizer.config.encoder.lookaheads
    lookaheads = [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(requested)]
    comparisons: list[Comparison] = []
    references = load_references(settings.model)
    common: Row = {
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "limit": settings.limit,
        "near_tie_gap": NEAR_TIE,
        "device": device(),
    }
    for manifest in settings.manifests:
        recordings = read_recordings(manifest, settings.limit, recognizer.config, rows.report)
        for lookahead in lookaheads if recordings else ():
            label = f"{manifest.stem}, look-ahead {lookahead}"
            with tqdm(desc=label, total=len(recordings), disable=None, leave=False) as bar:
                found = list(compare(recognizer, references, recordings, lookahead, bar.update))
            comparisons += found
            for row in tally(found):
                rows.add({**common, "manifest": str(manifest), **row})
    print(f"{table(comparisons)}\n\n{NOTE}")  # over all manifests, where rows have one each
    differences = [comparison.difference for comparison in comparisons if comparison.difference is not None]
    if differences:
        print(f"\n{listing(comparisons)}")
    return 1 if rows.problems or not all(difference.near_tie for difference in differences) else 0


EXPERIMENT = Experiment("compare_references", Settings, measure, __doc__, packages=(*PACKAGES, *REFERENCES))
main = EXPERIMENT.main
