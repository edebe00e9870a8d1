import pytest

from convert.nemo.decoding import DEFAULT_MAX_SYMBOLS, NO_LIMIT, max_symbols
from convert.sections import Section


@pytest.mark.parametrize(
    "values,limit",
    [
        ({"strategy": "greedy_batch", "greedy": {"max_symbols": 7}}, 7),
        ({"strategy": "greedy", "greedy": {"max_symbols": None, "max_symbols_per_step": 5}}, 5),
        ({"greedy": {"max_symbols": 0, "max_symbols_per_step": 5}}, 5),
        ({"greedy": {"max_symbols": 7, "max_symbols_per_step": 5, "loop_labels": False}, "beam": None}, 7),
    ],
)
def test_the_limit_of_labels_is_taken_over(values, limit):
    section = Section(values, "decoding.")
    assert max_symbols(section) == limit and section.problems == section.all_notes() == []


@pytest.mark.parametrize(
    "values,limit,note",
    [
        ({"greedy": {}}, NO_LIMIT, "no limit becomes 100 labels per frame"),
        ({"greedy": {"max_symbols": None}}, NO_LIMIT, "no limit becomes 100 labels per frame"),
        ({"strategy": "greedy"}, DEFAULT_MAX_SYMBOLS, "is absent: 10 labels per frame are assumed"),
        ({"greedy": None}, DEFAULT_MAX_SYMBOLS, "is absent: 10 labels per frame are assumed"),
    ],
)
def test_a_limit_that_is_not_a_number(values, limit, note):
    section = Section(values, "decoding.")
    assert max_symbols(section) == limit and section.problems == []
    assert section.all_notes() == [f"decoding.greedy.max_symbols{' ' if 'absent' in note else ': '}{note}"]


@pytest.mark.parametrize("value", [-1, "ten", 1.5, True, 10**9])
def test_a_limit_that_nemo_refuses_too(value):
    section = Section({"greedy": {"max_symbols": value}}, "decoding.")
    assert max_symbols(section) >= 1 and len(section.problems) == 1


GREEDY = {"max_symbols": 10}


@pytest.mark.parametrize(
    "values,note",
    [
        *(
            ({"strategy": name}, f"decoding.strategy: {name} is left out: nemojax decodes greedily")
            for name in ("beam", "tsd", "alsd", "maes", "malsd_batch", "maes_batch")
        ),
        ({"temperature": 0.5}, "decoding.temperature: 0.5 is left out: it changes confidences, and no label"),
        ({"strip_lang_tags": True}, "decoding.strip_lang_tags: true is left out: labels of languages stay in the text"),
        (
            {"greedy": GREEDY | {"ngram_lm_model": "lm.nemo", "ngram_lm_alpha": 0.3}},
            "decoding.greedy.ngram_lm_model: lm.nemo is left out: nemojax decodes without a language model",
        ),
        (
            {"greedy": GREEDY | {"boosting_tree": {"key_phrases_list": ["a"]}, "boosting_tree_alpha": 1.0}},
            "decoding.greedy.boosting_tree is left out: nemojax prefers no phrases",
        ),
        (
            {"greedy": GREEDY | {"new": 1}, "other": 2},
            "settings that nemojax does not use: decoding.greedy.new, decoding.other",
        ),
    ],
)
def test_what_is_left_out_is_noted(values, note):
    section = Section({"greedy": GREEDY} | values, "decoding.")
    assert max_symbols(section) == 10 and section.problems == [] and section.all_notes() == [note]


def test_a_language_model_of_a_strategy_that_is_not_used_is_not_noted():
    values = {
        "strategy": "greedy_batch",
        "greedy": GREEDY | {"boosting_tree": {"model_path": None, "key_phrases_list": []}},
        "beam": {"ngram_lm_model": "lm.arpa"},
        "confidence_cfg": {"preserve_frame_confidence": True},
        "temperature": 1,
    }
    section = Section(values, "decoding.")
    assert max_symbols(section) == 10 and section.all_notes() == []
    section = Section(values | {"strategy": "maes"}, "decoding.")
    max_symbols(section)
    assert [note.partition(":")[0] for note in section.all_notes()] == [
        "decoding.strategy",
        "decoding.beam.ngram_lm_model",
    ]
