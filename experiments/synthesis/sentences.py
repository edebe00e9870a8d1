"""English sentences, cased and punctuated, of which the text is exactly what is spoken: no digits, no abbreviations."""

import hashlib
import random
import re
from collections.abc import Iterator
from functools import cache

from experiments.synthesis.grammar import RULES, TOPICS

MOST_WORDS = 14
HELD_OUT_PERCENT = 10
SPOKEN = re.compile(r"[A-Za-z ,.?!;:'-]*[A-Za-z][A-Za-z ,.?!;:'-]*")
VOWEL = re.compile(r"\b([Aa]) (?=(?:hour|honest|[aeio]|u(?!ni|se)))")

TWICE = re.compile(r"\b([a-z]+) (?:and|or) \1\b")
SHORT_WORDS = 4


def sentence(rng: random.Random) -> str:
    """A sentence of at most MOST_WORDS words: a topic is drawn, then a form of it, then what fills it."""
    while True:
        text = _filled(rng.choice(TOPICS[rng.choice(list(TOPICS))]), rng)
        if len(text.split()) <= MOST_WORDS and not TWICE.search(text):
            text = VOWEL.sub(r"\1n ", text)
            return text[0].upper() + text[1:]


def _filled(form: str, rng: random.Random) -> str:
    return re.sub(r"{(\w+)}", lambda slot: _filled(rng.choice(RULES[slot[1]]), rng), form)


@cache
def vocabulary() -> frozenset[str]:
    """All words that sentences are made of, in lower case."""
    forms = " ".join(form for rule in [*RULES.values(), *TOPICS.values()] for form in rule)
    return frozenset(re.findall(r"[a-z][a-z'-]*", re.sub(r"{\w+}(?:'s)?", " ", forms).lower()))


def held_out(text: str) -> bool:
    """Whether a text is kept from training. It depends on its words alone: on no seed, case or punctuation."""
    said = " ".join(re.findall(r"[a-z']+", text.lower()))
    return hashlib.sha256(said.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256


def is_spoken_as_written(text: str) -> bool:
    """Whether a text has nothing but words and punctuation."""
    return bool(SPOKEN.fullmatch(text))


def sentences(rng: random.Random, kept_from_training: bool) -> Iterator[str]:
    """Sentences without end, all held out or none. Only those of at most SHORT_WORDS words come again."""
    seen = set()
    while True:
        text = sentence(rng)
        if held_out(text) == kept_from_training and text not in seen:
            if len(text.split()) > SHORT_WORDS:
                seen.add(text)
            yield text
