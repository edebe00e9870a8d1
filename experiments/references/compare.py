"""Whether NeMo and transformers, given a model's weights by `convert`, hear the same text as nemojax.

    python -m experiments compare_references MODEL MANIFEST... [--lookaheads 13 6 1 0] [--limit N]

The native checkpoint is written for both (`to-nemo`, `to-hf`), loaded by NeMo's `restore_from` and transformers'
`from_pretrained`; they hear every recording alone, in float32, and each decodes it with its own decoder. At each
look-ahead, text and labels are compared:

- of nemojax's `transcribe`, and of its `stream` chunk by chunk, with what a reference makes of the whole recording;
- of nemojax's `stream` with the references' streams. Those take whole chunks only, so all of them hear the recording
  and then silence to the end of a chunk. NeMo's stream is left out at look-ahead 0, where it is known to differ from
  NeMo's own offline output (it adds log-mel frames of zeros before the second chunk), and hears log-mel frames computed
  offline, because NeMo counts one more in a stream.

NeMo removes spaces before punctuation from its tokenizer's text; nemojax's text is compared with NeMo's after the same.
Where labels differ, the gap is between the reference's logits of the two at the first choice that differs. With a
gap of at most `agreement.NEAR_TIE` it is a near-tie: rounding alone may make the difference.

A table and all that differs go to standard output; a row for each manifest, look-ahead and pair of modes goes to JSON
lines, after those that are there. It needs the environment of `make parity`. Exit codes: 0, nothing differs but by
near-ties; 1, something does, or a recording could not be compared; 2, the command or the model is wrong.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import tyro
from tqdm import tqdm

from convert.errors import ConvertError, reason
from convert.huggingface import checkpoint as huggingface
from convert.nemo import checkpoint as nemo
from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import spread, writable
from experiments.references import nemo_model
from experiments.references.agreement import NEAR_TIE, Comparison, Difference, Heard, listing, parting, table, tally
from experiments.references.nemo_model import Nemo
from experiments.references.traces import Chunk, Decoding
from experiments.references.transformers_model import Transformers
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.config import ModelConfig
from nemojax.errors import AudioError, ConfigError
from nemojax.recognition.recognizer import Recognizer, load

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy", "sentencepiece", "torch", "nemo_toolkit", "transformers")
NOTE = (
    "Streams are compared on recordings with silence to the end of a chunk, which the references need; NeMo's not at "
    "look-ahead 0, where it is known to differ from NeMo's own offline output."
)
Hearing = tuple[Heard, Callable[[], Decoding]]


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    limit: int | None = None
    """At most so many recordings of each manifest, spread evenly over it."""
    output: Path = Path("compare_references.jsonl")

    def check(self) -> None:
        if not self.manifests:
            raise ConfigError("name at least one manifest")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, not {self.limit}")


# The references.


class Reference(Protocol):
    """A library's model. What it hears comes with how its layers decode the same encoding, all logits kept."""

    name: str
    blank: int

    def shown(self, text: str) -> str:
        """The library's form of its tokenizer's text."""

    def offline(self, samples: np.ndarray, lookahead: int) -> Hearing: ...

    def stream(self, samples: np.ndarray, lookahead: int) -> Hearing | None:
        """Of the whole chunks; None where this stream is no reference."""


class NemoReference:
    name = "NeMo"

    def __init__(self, archive: Path):
        from nemo.utils import logging

        logging.setLevel(logging.ERROR)  # its notes go to standard output
        self._nemo = Nemo(nemo_model.load(archive))
        self.blank = self._nemo.blank

    def shown(self, text: str) -> str:
        return self._nemo.tidied(text)

    def offline(self, samples: np.ndarray, lookahead: int) -> Hearing:
        encoded = self._nemo.offline(samples, lookahead)["encoder"]
        tokens, frames, text = self._nemo.decode(encoded)
        return Heard(text, tuple(tokens), tuple(frames)), lambda: self._nemo.double_loop(encoded)

    def stream(self, samples: np.ndarray, lookahead: int) -> Hearing | None:
        if lookahead == 0:
            return None
        chunks = self._nemo.stream(self._nemo.log_mel(samples), lookahead)
        tokens = self._nemo.decode_stream(chunks)
        text = self.shown(self._nemo.model.tokenizer.ids_to_text(tokens))
        return Heard(text, tuple(tokens), None), lambda: self._nemo.double_loop(_encoded(chunks))


class TransformersReference:
    name = "transformers"

    def __init__(self, directory: Path):
        import torch
        from transformers import AutoModelForRNNT, AutoProcessor

        # by default it computes in the type of the file; and eager attention gives NaN
        model = AutoModelForRNNT.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa").eval()
        processor = AutoProcessor.from_pretrained(directory)
        self._tokenizer, self._transformers = processor.tokenizer, Transformers(model, processor.feature_extractor)
        self.blank = self._transformers.blank

    def shown(self, text: str) -> str:
        return text

    def offline(self, samples: np.ndarray, lookahead: int) -> Hearing:
        decode = lambda: self._transformers.double_loop(self._transformers.offline(samples, lookahead)["encoder"])
        return self._generated(samples, lookahead, streaming=False), decode

    def stream(self, samples: np.ndarray, lookahead: int) -> Hearing | None:
        def decode() -> Decoding:
            log_mel = self._transformers.offline(samples, lookahead)["log_mel"]
            return self._transformers.double_loop(_encoded(self._transformers.stream(log_mel, lookahead)))

        return self._generated(samples, lookahead, streaming=True), decode

    def _generated(self, samples: np.ndarray, lookahead: int, streaming: bool) -> Heard:
        tokens, frames = self._transformers.generate(samples, lookahead, streaming)
        # as its processor does: a label that is there twice is shown twice
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, group_tokens=False)
        return Heard(text, tuple(tokens), tuple(frames))


def _encoded(chunks: Sequence[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.trace["encoder"] for chunk in chunks])


def load_references(model: Path) -> list[Reference]:
    """NeMo's and transformers' model on the weights of a native checkpoint.

    Raises:
      CheckpointError: `model` is not a checkpoint.
      ConfigError: a reference is not installed.
      ConvertError: a reference can't express the model, or does not load what is written for it.
    """
    check_installed()
    import torch

    torch.set_num_threads(1)  # a frame at a time, more are slower
    with tempfile.TemporaryDirectory(prefix="nemojax-") as name:
        archive, directory = Path(name, "model.nemo"), Path(name, "huggingface")
        nemo.write(model, archive)
        huggingface.write(model, directory)
        return [_loaded(NemoReference, archive), _loaded(TransformersReference, directory)]


def _loaded(kind: type[Any], path: Path) -> Reference:
    try:
        return kind(path)
    except Exception as error:  # theirs have no common type
        raise ConvertError(f"{kind.name} does not load what `convert` writes for it: {reason(error)}") from error


def check_installed() -> None:
    missing = [name for name in ("torch", "nemo", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} can't be found here: run this in the environment that `make parity` sets up "
            '(.venv-parity), or pip install "nemojax[parity]" into another'
        )


# What is compared.


def read_recordings(
    manifest: Path, limit: int | None, config: ModelConfig, report: Callable[[AudioError], object]
) -> list[tuple[str, np.ndarray]]:
    """Names and samples; what can't be compared is left out and reported."""
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
    """Samples with silence to the end of a chunk."""
    return np.pad(samples, (0, -(len(samples) + config.history_samples) % config.chunk_samples(lookahead)))


def streamed(recognizer: Recognizer, samples: np.ndarray, lookahead: int) -> Heard:
    """What nemojax's stream shows, chunk by chunk."""
    stream = recognizer.stream(lookahead)
    for begin in range(0, len(samples), stream.chunk_samples):
        stream.push(samples[begin : begin + stream.chunk_samples])
    transcript = stream.finish()
    return Heard(stream.text, transcript.tokens, transcript.frames)


def compare(
    recognizer: Recognizer,
    references: Sequence[Reference],
    recordings: Sequence[tuple[str, np.ndarray]],
    lookahead: int,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Comparison]:
    """All comparisons at a look-ahead, recording by recording; `progress` is called after each."""
    transcripts = recognizer.transcribe([samples for _, samples in recordings], lookahead)
    for (name, samples), transcript in zip(recordings, transcripts, strict=True):
        padded = whole_chunks(samples, recognizer.config, lookahead)
        offline = Heard(transcript.text, transcript.tokens, transcript.frames)
        stream, padded_stream = (streamed(recognizer, heard, lookahead) for heard in (samples, padded))
        for reference in references:
            whole, chunks = reference.offline(samples, lookahead), reference.stream(padded, lookahead)
            pairs = [("offline", "offline", offline, whole), ("offline", "stream", stream, whole)]
            pairs += [("stream", "stream", padded_stream, chunks)] if chunks else []
            for mode, our_mode, ours, theirs in pairs:
                difference = compare_one(ours, theirs, reference)
                labels = len(theirs[0].tokens)
                yield Comparison(reference.name, mode, our_mode, lookahead, name, labels, difference)
        progress()


def compare_one(ours: Heard, theirs: Hearing, reference: Reference) -> Difference | None:
    (heard, decode), shown = theirs, reference.shown(ours.text)
    if shown == heard.text and ours.tokens == heard.tokens:
        return None
    return Difference(shown, heard.text, parting(ours, heard, decode(), reference.blank))


# The command.


def run(settings: Settings) -> int:
    settings.check()
    check_installed()
    recognizer = load(settings.model)
    asked = settings.lookaheads or recognizer.config.encoder.lookaheads
    lookaheads = [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(asked)]
    failed: list[AudioError] = []
    comparisons: list[Comparison] = []

    def report(error: AudioError) -> None:
        tqdm.write(f"error: {error}", file=sys.stderr)
        failed.append(error)

    with writable(settings.output, "a") as output:
        references = load_references(settings.model)
        for manifest in settings.manifests:
            recordings = read_recordings(manifest, settings.limit, recognizer.config, report)
            for lookahead in lookaheads if recordings else ():
                label = f"{manifest.stem}, look-ahead {lookahead}"
                with tqdm(desc=label, total=len(recordings), disable=None, leave=False) as bar:
                    found = list(compare(recognizer, references, recordings, lookahead, bar.update))
                comparisons += found
                for row in tally(found):
                    row = {**_start(settings, manifest, recognizer), **row, "device": device(), **machine(PACKAGES)}
                    output.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                output.flush()
    print(f"{table(comparisons)}\n\n{NOTE}")
    differences = [comparison.difference for comparison in comparisons if comparison.difference is not None]
    if differences:
        print(f"\n{listing(comparisons)}")
    return 1 if failed or not all(difference.near_tie for difference in differences) else 0


def _start(settings: Settings, manifest: Path, recognizer: Recognizer) -> dict[str, Any]:
    return {
        "experiment": "compare_references",
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "manifest": str(manifest),
        "limit": settings.limit,
        "near_tie_gap": NEAR_TIE,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "compare_references", __doc__, arguments, catch=(ConvertError,))
