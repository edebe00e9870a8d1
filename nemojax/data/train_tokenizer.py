"""Trains a SentencePiece model on the texts of manifests; the same texts and settings give the same bytes.

python -m nemojax.data.train_tokenizer MANIFEST... --output tokenizer.model --size 1024
"""

import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from sentencepiece import SentencePieceTrainer

from nemojax.audio.manifest import expand_manifest
from nemojax.data.command import Flag, run_command
from nemojax.errors import AudioError, ConfigError
from nemojax.text.tokenizer import Tokenizer

MAX_TEXT_BYTES = 2**16  # SentencePiece silently leaves out longer sentences


def train(
    texts: Iterable[str],
    size: int = 1024,
    kind: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
) -> bytes:
    """Returns a model of `size` pieces. Piece 0 is the unknown piece; blank is not a piece.

    Args:
      character_coverage: the share of characters that get a piece of their own; the rarest do not.
      byte_fallback: adds 256 pieces that encode characters without a piece byte by byte.

    Raises:
      ConfigError: there is no text, or the texts do not yield `size` pieces.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ConfigError("there is no text to train a tokenizer on")
    if long := next((text for text in texts if len(text.encode()) > MAX_TEXT_BYTES), None):
        raise ConfigError(f"a text is longer than {MAX_TEXT_BYTES} bytes; it begins {long[:40]!r}")
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type=kind,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            max_sentence_length=MAX_TEXT_BYTES,
            unk_id=0,
            bos_id=-1,  # a transducer does not use begin and end of sentence
            eos_id=-1,
            shuffle_input_sentence=False,
            num_threads=1,  # several threads would sum in a different order each time
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{len(texts)} texts can't make a tokenizer of {size} pieces: {_reason(error)}") from None
    return model.getvalue()


def _reason(error: Exception) -> str:
    """Returns SentencePiece's message, without the place in its source code."""
    return re.sub(r"^.*\[.*?\]\s*", "", str(error).strip().splitlines()[-1]) or type(error).__name__


def texts_of(manifests: Sequence[Path], distinct: bool = False) -> list[str]:
    """Returns the texts of manifests, in their order. Raises ConfigError for a line that can't be read."""
    texts = []
    for manifest in manifests:
        for entry in expand_manifest(manifest):
            if isinstance(entry, AudioError):
                raise ConfigError(f"{entry}; python -m nemojax.data.validate lists everything wrong")
            if entry.text is not None:
                texts.append(entry.text)
    return list(dict.fromkeys(texts)) if distinct else texts


def train_tokenizer(
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]],
    /,
    output: Path,
    size: int = 1024,
    type: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 1.0,
    byte_fallback: Flag = False,
    distinct: Flag = False,
) -> int:
    """Train a SentencePiece tokenizer on the texts of manifests.

    Args:
      manifests: JSON lines in NeMo's form.
      output: the file to write, tokenizer.model; an existing file is not overwritten.
      size: number of pieces.
      type: kind of model.
      character_coverage: share of characters that get a piece of their own.
      byte_fallback: encode characters without a piece byte by byte; takes 256 pieces.
      distinct: count a repeated text once.
    """
    if not manifests:
        raise ConfigError("name at least one manifest")
    texts = texts_of(manifests, distinct)
    model = train(texts, size, type, character_coverage, byte_fallback)
    tokenizer = Tokenizer(model)
    try:
        with output.open("xb") as file:
            file.write(model)
    except FileExistsError:
        raise ConfigError(f"{output} exists already; name a new file or remove it first") from None
    except OSError as error:
        raise ConfigError(f"{output} can't be written: {error.strerror}") from None
    density = sum(map(len, texts)) / sum(len(tokenizer.encode(text)) for text in texts)
    print(f"{output}: {tokenizer.size} pieces from {len(texts)} texts, {density:.2f} characters per label")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(train_tokenizer, "python -m nemojax.data.train_tokenizer", arguments)


if __name__ == "__main__":
    sys.exit(main())
