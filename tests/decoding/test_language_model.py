import gzip
import itertools
import math

import numpy as np
import pytest

from nemojax.decoding.arpa import read_arpa
from nemojax.decoding.language_model import language_model_graph
from nemojax.errors import LanguageModelError
from tests.decoding.test_graphs import looked_up
from tests.helpers.messages import ending

PIECES = ("<unk>", "▁a", "b", "c", "▁d", "e")
COUNT = len(PIECES)
WORDS = {
    "nemo": [chr(100 + i) for i in range(COUNT)],
    "pieces": list(PIECES),
    "numbers": [str(i) for i in range(COUNT)],
}


def arpa(orders, spelling="nemo", begin="", tab="\t"):
    """The text of an ARPA file; `orders` have {labels: (probability, backoff)}, with "<s>" and "</s>" among labels."""
    words = lambda key: " ".join(y if isinstance(y, str) else WORDS[spelling][y] for y in key)
    lines = [begin + "\\data\\", *(f"ngram {n}={len(entries)}" for n, entries in enumerate(orders, 1))]
    for order, entries in enumerate(orders, 1):
        lines += ["", f"\\{order}-grams:"]
        lines += [
            f"{score}{tab}{words(key)}" + ("" if backoff is None else f"{tab}{backoff}")
            for key, (score, backoff) in entries.items()
        ]
    return "\n".join([*lines, "", "\\end\\", ""])


def random_orders(seed, order, begin=True, unknown=True, labels=COUNT):
    """N-grams whose suffixes and beginnings may be missing, as after pruning."""
    rng = np.random.default_rng(seed)
    pair = lambda last: (
        round(-float(rng.uniform(0.1, 3)), 4),
        None if last else round(float(rng.normal(-0.3, 0.3)), 4),
    )
    orders = [{(y,): pair(order == 1) for y in range(1, labels)}]
    orders[0] |= {("<s>",): (-99, None if order == 1 else -0.4)} if begin else {}
    orders[0] |= {("</s>",): (-1.0, None)} | ({("<unk>",): (-2.5, None)} if unknown else {})
    for n in range(2, order + 1):
        keys = {(*rng.integers(1, labels, n - 1).tolist(), rng.choice([*range(1, labels), "</s>"])) for _ in range(12)}
        keys = {(*key[:-1], key[-1] if key[-1] == "</s>" else int(key[-1])) for key in keys}
        keys |= {("<s>", *key[1:]) for key in itertools.islice(sorted(keys, key=str), 3)} if begin else set()
        orders.append({key: pair(n == order) for key in sorted(keys, key=str)})
    return orders


def score_of(orders, history, label, missing):
    """The definition: the longest n-gram that ends with the label, with the backoffs of all longer histories."""
    history = tuple(history)[-(len(orders) - 1) :] if len(orders) > 1 else ()
    total = 0.0
    while True:
        known = orders[len(history)].get((*history, label))
        if known is not None:
            return (total + known[0]) * math.log(10)
        if not history:
            return (total + missing) * math.log(10)
        total += (orders[len(history) - 1].get(history) or (0, 0))[1] or 0
        history = history[1:]


def graph_of(tmp_path, text, pieces=PIECES):
    path = tmp_path / "lm.arpa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return language_model_graph(read_arpa(path, pieces), len(pieces))


@pytest.mark.parametrize(
    ("order", "begin", "unknown", "spelling"),
    [
        (1, True, True, "nemo"),
        (1, False, False, "pieces"),
        (2, False, True, "numbers"),
        (3, True, False, "nemo"),
        (4, True, True, "pieces"),
        (5, False, False, "nemo"),
    ],
)
def test_any_labels_score_what_a_double_loop_over_the_file_gives(tmp_path, order, begin, unknown, spelling):
    for seed in range(4):
        orders = random_orders(seed, order, begin, unknown, COUNT - seed % 2)
        without = [y for y in range(COUNT) if (y,) not in orders[0]]
        missing = (-2.5 if unknown else -99) - math.log10(len(without))
        graph = graph_of(tmp_path, arpa(orders, spelling, "\n" * (seed % 3), "\t" if seed < 2 else "  "))
        for labels in np.random.default_rng(seed).integers(0, COUNT, (40, 8)).tolist():
            state, history = graph.start, ["<s>"]
            for label in labels:
                score, state = looked_up(graph, state, label)
                assert score == pytest.approx(score_of(orders, history, label, missing), abs=1e-9)
                history.append(label)


def test_no_label_scores_more_than_the_state_says(tmp_path):
    graph = graph_of(tmp_path, arpa(random_orders(0, 4)))
    highest = [max(looked_up(graph, state, y)[0] for y in range(COUNT)) for state in range(len(graph.begin))]
    above = graph.most - highest
    assert (above > 0).all() and (above < 1e-3).sum() > len(above) / 2  # a label that is backed off to may be masked


def test_spellings_that_look_like_spaces_are_words(tmp_path):
    pieces = tuple(f"p{i}" for i in range(100))  # label 33 is U+0085, label 60 a no-break space
    entries = {(chr(100 + i),): (-2.0, None) for i in range(100)}
    graph = graph_of(tmp_path, arpa([entries]), pieces)
    assert graph.scores == pytest.approx(np.full(100, -2 * math.log(10)))


def test_a_compressed_file_one_of_windows_and_one_with_a_word_in_capitals(tmp_path):
    text = arpa(random_orders(0, 3))
    expected = graph_of(tmp_path, text)
    of_windows = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    for data in (gzip.compress(text.encode()), of_windows, text.replace("<unk>", "<UNK>")):
        for found, want in zip(graph_of(tmp_path, data), expected, strict=True):
            np.testing.assert_array_equal(found, want)


GOOD = arpa([{(1,): (-1.0, -0.5), ("<s>",): (-99, 0)}, {("<s>", 1): (-0.5, None)}])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("ngram 2=1", "ngram 2=2", "line 12: there are 1 2-grams, and \\data\\ says 2"),
        ("ngram 2=1", "ngram 3=1", "line 3: orders must be 1, 2, ... up to 32, not 3 here"),
        ("ngram 1=2\nngram 2=1\n", "", "line 3: a line such as ngram 1=1000 must follow \\data\\"),
        ("\\2-grams:", "\\3-grams:", "line 9: \\2-grams: must be here, not \\3-grams:"),
        ("-0.5\t<s>", "half\t<s>", "line 10: 'half' is no logarithm of a probability or a backoff"),
        ("-0.5\t<s>", "nan\t<s>", "line 10: 'nan' is no logarithm of a probability or a backoff"),
        ("-0.5\t<s>", "0.5\t<s>", "line 10: the logarithm of a probability is at most 0, not 0.5"),
        (
            "-0.5\t<s> e",
            "-0.5\t<s>",
            "line 10: a 2-gram has a probability, 2 words and perhaps a backoff, not 2 columns",
        ),
        (
            "<s> e",
            "<s> hello",
            "line 10: 'hello' is not a piece of the model's tokenizer; estimate the language model over its pieces, "
            "with nemojax lm",
        ),
        ("ngram 1=2", "ngram 1=3", "line 9: there are 2 1-grams, and \\data\\ says 3"),
        ("\\end\\", "\\3-grams:\n\\end\\", "line 12: \\end\\ must be here, not \\3-grams:"),
        ("\\end\\", "", "line 13: the file ends without \\end\\; it is cut short, or not an ARPA file"),
        ("\\data\\", "data", "line 13: the file ends without \\end\\; it is cut short, or not an ARPA file"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, before, after, message):
    assert before in GOOD
    with pytest.raises(LanguageModelError) as error:
        graph_of(tmp_path, GOOD.replace(before, after))
    assert str(error.value) == f"{tmp_path / 'lm.arpa'}: {message}"


def test_an_n_gram_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(LanguageModelError, match=ending("line 11: the 2-gram '<s> e' is there twice")):
        graph_of(tmp_path, GOOD.replace("2=1", "2=2").replace("-0.5\t<s> e", "-0.5\t<s> e\n-0.5\t<s> e"))
