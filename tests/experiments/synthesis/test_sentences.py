"""Random sentences: their words, their spread, and which are held out."""

import itertools
import random
import re
from collections import Counter

import pytest

from experiments.synthesis.grammar import RULES, TOPICS
from experiments.synthesis.sentences import held_out, is_spoken_as_written, sentence, sentences, vocabulary


def made(count, seed=0):
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def test_sentences_are_what_is_spoken():
    words = vocabulary()
    assert len(words) >= 1200
    for text in made(5000):
        assert re.fullmatch(r"[A-Z][A-Za-z ,'-]*[.?!]", re.sub(r"[!,]? not ", " not ", text)), text
        assert is_spoken_as_written(text) and "  " not in text and " ," not in text, text
        assert 1 <= len(text.split()) <= 14, text
        for word in re.findall(r"[\w'-]+", text.lower()):
            parts = [word] if word in words else word.removesuffix("'s").split("-")
            assert words.issuperset(parts) or word == "an", text
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]|\ban uni|\ban use", text), text
        assert not re.search(r"\b([a-z]+) (and|or) \1\b", text), text


def test_every_rule_is_used_and_every_use_has_a_rule():
    forms = itertools.chain(*RULES.values(), *TOPICS.values())
    used = {slot for form in forms for slot in re.findall(r"{(\w+)}", form)}
    assert used == set(RULES)
    assert all(form and form.count("{") == form.count("}") for form in itertools.chain(*RULES.values()))


def test_sentences_are_many_and_spread_over_words_and_digits():
    texts = made(10_000)
    assert len(set(texts)) > 8000 and max(Counter(texts).values()) < 50
    counts = Counter(re.findall(r"[\w'-]+", " ".join(texts).lower()))
    assert len(counts) > 1100
    assert min(counts[digit] for digit in RULES["digit"]) > 150
    assert {text[-1] for text in texts} == set(".?!")


def test_a_seed_decides_every_sentence():
    assert made(50, seed=3) == made(50, seed=3) != made(50, seed=4)


def test_held_out_sentences_are_never_trained_on_whatever_the_seed():
    def drawn(seed, kept, count):
        return list(itertools.islice(sentences(random.Random(seed), kept), count))

    train, dev = drawn(0, False, 8000), drawn(1, True, 800)
    assert not set(train) & set(dev)
    assert not any(map(held_out, train)) and all(map(held_out, dev))
    assert 0.08 < sum(map(held_out, made(5000))) / 5000 < 0.12
    assert held_out(dev[0]) == held_out(dev[0].upper()) == held_out(re.sub(r"[,.?!]", "", dev[0]))
    assert max(count for text, count in Counter(train).items() if len(text.split()) > 4) == 1


@pytest.mark.parametrize("text", ["in 1840", "Mr. & Mrs. Brown", "naïve", "", "...", "a/b", "5"])
def test_texts_that_are_not_words_alone_are_not_spoken(text):
    assert not is_spoken_as_written(text)
