"""Makes English sentences, cased and punctuated, whose text is exactly what is spoken: no digits, no abbreviations."""

import hashlib
import random
import re
from collections.abc import Iterator
from functools import cache

from experiments.synthesis.grammar import RULES, TOPICS

MAX_WORDS = 14
HELD_OUT_PERCENT = 10
SPOKEN = re.compile(r"[A-Za-z ,.?!;:'-]*[A-Za-z][A-Za-z ,.?!;:'-]*")
VOWEL = re.compile(r"\b([Aa]) (?=(?:hour|honest|[aeio]|u(?!ni|se)))")
REPEATED = re.compile(r"\b([a-z]+) (?:and|or) \1\b")
SHORT_WORDS = 4  # a sentence of at most this length may come again


def sentence(rng: random.Random) -> str:
    """Makes a sentence of at most MAX_WORDS words: draws a topic, then one of its forms, then the words in it."""
    while True:
        text = _filled(rng.choice(TOPICS[rng.choice(list(TOPICS))]), rng)
        if len(text.split()) <= MAX_WORDS and not REPEATED.search(text):
            text = VOWEL.sub(r"\1n ", text)
            return text[0].upper() + text[1:]


def _filled(form: str, rng: random.Random) -> str:
    return re.sub(r"{(\w+)}", lambda slot: _filled(rng.choice(RULES[slot[1]]), rng), form)


@cache
def vocabulary() -> frozenset[str]:
    """Returns all words that sentences are made of, in lower case."""
    forms = " ".join(form for rule in [*RULES.values(), *TOPICS.values()] for form in rule)
    return frozenset(re.findall(r"[a-z][a-z'-]*", re.sub(r"{\w+}(?:'s)?", " ", forms).lower()))


def held_out(text: str) -> bool:
    """Returns whether a text is held out from training: a function of its words, not of case or punctuation."""
    spoken = " ".join(re.findall(r"[a-z']+", text.lower()))
    return hashlib.sha256(spoken.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256


def is_spoken_as_written(text: str) -> bool:
    """Returns whether a text consists of words and punctuation alone."""
    return bool(SPOKEN.fullmatch(text))


def sentences(rng: random.Random, kept_from_training: bool) -> Iterator[str]:
    """Yields sentences without end, all held out or none; a sentence of more than SHORT_WORDS words comes once."""
    seen = set()
    while True:
        text = sentence(rng)
        if held_out(text) == kept_from_training and text not in seen:
            if len(text.split()) > SHORT_WORDS:
                seen.add(text)
            yield text
