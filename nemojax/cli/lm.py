"""`nemojax lm`: estimates an n-gram language model over the pieces of a model."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from nemojax.bundled import SMALL
from nemojax.checks import check_count
from nemojax.cli.options import Model
from nemojax.errors import ConfigError, LanguageModelError
from nemojax.text.tokenizer import Tokenizer

Text = Positional[
    Annotated[Path, arg(metavar="TEXT", help="text in UTF-8, a sentence on each line, spelled as transcripts are.")]
]
Out = Positional[Annotated[Path, arg(metavar="OUT", help="the new ARPA file.")]]
Order = Annotated[int, arg(metavar="ORDER", help="the most pieces of an n-gram; pieces are shorter than words.")]
Joined = Annotated[bool, arg(help="a line also follows the one before it: for recordings of several sentences.")]


def lm(text: Text, out: Out, /, model: Model = SMALL, order: Order = 4, joined: Joined = False) -> int:
    """Estimate a language model from text, over the pieces of a model."""
    from nemojax.checkpoint import read_settings
    from nemojax.decoding.arpa import write_arpa
    from nemojax.decoding.estimation import estimate
    from nemojax.decoding.graphs import MAX_BACKOFFS

    check_count("--order", order)
    if order > MAX_BACKOFFS:
        raise ConfigError(f"--order must be at most {MAX_BACKOFFS}, not {order}")
    if joined and order < 2:
        raise ConfigError("--joined needs an --order of at least 2: n-grams of one piece follow nothing")
    config, tokenizer_model, _ = read_settings(model)
    tokenizer = Tokenizer(tokenizer_model, config.text)
    lines = tqdm(_lines(text), desc="lines", unit="", leave=False, disable=None)
    sentences = [tokenizer.encode(line) for line in lines]
    if not any(sentences):
        raise LanguageModelError(f"{text}: it has no text")
    unknown = sum(any(map(tokenizer.is_silent, sentence)) for sentence in sentences)
    if unknown:
        print(f"note: {unknown:,} lines have characters that the model's tokenizer has no pieces for", file=sys.stderr)
    orders = estimate(sentences, tokenizer.size, order, joined)
    try:
        write_arpa(out, orders)
    except OSError as error:
        raise LanguageModelError(f"{out}: it can't be written: {error.strerror or error}") from None
    counts = ", ".join(f"{len(entries):,}" for entries in orders)
    print(f"{out}: {counts} n-grams of order 1 to {order}, of {len(sentences):,} sentences")
    return 0


def _lines(path: Path) -> Iterator[str]:
    """Yields the lines of a text that are not empty."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from (line.strip() for line in file if line.strip())
    except UnicodeDecodeError:
        raise LanguageModelError(f"{path}: it is not text in UTF-8") from None
    except OSError as error:
        raise LanguageModelError(f"{path}: it can't be read: {error.strerror or error}") from None
