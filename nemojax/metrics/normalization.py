"""Forms of a text in which transcripts are compared: its words and punctuation marks apart, or normalized."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator

from nemojax.errors import ConfigError

MARKS = ".,?!;:"  # counted as punctuation; quotes, brackets and dashes are not


def plain(text: str) -> str:
    """Returns a text in lower case, without punctuation, with one space between words.

    Word errors are usually counted in this form. A word is a run of letters, digits and combining marks, with the
    apostrophes (' or ’) inside it; all other characters, hyphens and symbols included, only separate words.
    "Well-known, isn’t it?" is "well known isn't it".
    """
    return " ".join(words(text)).lower()


def normalizer(name: str) -> Callable[[str], str]:
    """Returns a function from a text to one of its forms.

    Args:
      name: "none" (the text as it is), "plain", or "whisper" (Whisper's rules for English).

    Raises:
      ConfigError: no form has this name, or the package that "whisper" needs is not installed.
    """
    if name == "whisper":
        try:
            from whisper_normalizer.english import EnglishTextNormalizer
        except ImportError:
            raise ConfigError(
                'the normalizer "whisper" needs the package whisper-normalizer: pip install "nemojax[experiments]"'
            ) from None
        whisper: Callable[[str], str] = EnglishTextNormalizer()
        return whisper
    known: dict[str, Callable[[str], str]] = {"none": lambda text: text, "plain": plain}
    if name not in known:
        raise ConfigError(f"the normalizer must be one of {', '.join(known)}, whisper, not {name!r}")
    return known[name]


def words(text: str) -> list[str]:
    """Returns the words of a text, as `plain` describes them, with their case."""
    return [token for token in tokens(text) if token not in MARKS]


def tokens(text: str) -> Iterator[str]:
    """Yields the words of a text, with their case, and its punctuation marks, in order.

    A mark between two digits belongs to a number, and is left out.
    """
    text = unicodedata.normalize("NFC", text.replace("\u2019", "'"))
    word = ""
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if _is_word_character(character) or (
            character == "'" and _is_word_character(before) and _is_word_character(after)
        ):
            word += character
            continue
        if word:
            yield word
        word = ""
        if character in MARKS and not (before.isdigit() and after.isdigit()):
            yield character
    if word:
        yield word


def _is_word_character(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def without_events(text: str, events: Iterable[str]) -> str:
    """Removes the marks of events, such as "<EOU>", which end texts of some manifests and are no words."""
    marked = [event for event in events if event in text]
    for event in marked:
        text = text.replace(event, " ")
    return " ".join(text.split()) if marked else text
