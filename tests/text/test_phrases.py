import io

import pytest
from sentencepiece import SentencePieceTrainer

from nemojax.errors import ConfigError
from nemojax.text.phrases import MAX_LABELS, checked, marks, read_phrases, spellings
from nemojax.text.tokenizer import Tokenizer
from tests.helpers.messages import ending, whole


@pytest.fixture(scope="module")
def tokenizer():
    text = ["the fox (Fox) FOX ran-fast New York", "a new fox, yes york NEW YORK"]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text * 5),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


def test_phrases_and_boosts_as_clients_send_them():
    given = ["Oslo", ("Oslo  Fjord", 2.0), ["x", 100], ("y", -3), ("z", 0), "", "  ", ("", 10.0), "$DATE", ("$TIME", 2)]
    assert checked(given) == (("Oslo", 1.0), ("Oslo Fjord", 2.0), ("x", 5.0), ("y", 0.1), ("z", 0.1))
    assert checked({"a": 2}) == (("a", 2.0),) and checked(["$5", "$5"]) == (("$5", 1.0),) and checked([]) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Oslo", "phrases must be a list of phrases, not 'Oslo'"),
        (5, "phrases must be a list of phrases, not 5"),
        ([5], "a phrase is a text, or a text and its boost, not 5"),
        ([("a", 1, 2)], "a phrase is a text, or a text and its boost, not ('a', 1, 2)"),
        ([("a", "much")], "the boost of the phrase 'a' must be a number, not much"),
        ([("a", float("nan"))], "the boost of the phrase 'a' must be a number, not nan"),
    ],
)
def test_what_is_no_phrase_is_refused(given, message):
    with pytest.raises(ConfigError, match=whole(message)):
        checked(given)


def test_a_phrase_is_spelled_in_each_case_and_after_a_mark(tokenizer):
    found = spellings(tokenizer, [("new Fox", 2.0)])
    texts = lambda after: {tokenizer.decode(spelling.labels) for spelling in found if spelling.after_mark is after}
    assert texts(False) == texts(True) == {"new Fox", "new fox", "New Fox", "NEW FOX"}
    own = [spelling for spelling in found if len(spelling.labels) == spelling.own_length]
    assert {spelling.boost for spelling in found} == {2.0} and len(own) == 8
    pieces = [tokenizer.piece(spelling.labels[0]) for spelling in found if spelling.after_mark]
    assert not any(piece.startswith("▁") for piece in pieces)
    assert "(" in marks(tokenizer).values() and "," not in marks(tokenizer).values()
    for spelling in own:
        if spelling.after_mark:
            text = tokenizer.decode(spelling.labels)
            assert tokenizer.encode("(" + text)[-len(spelling.labels) :] == list(spelling.labels)


def test_a_phrase_is_spelled_in_other_segmentations_too(tokenizer):
    found = [s for s in spellings(tokenizer, [("new fox", 1.0)]) if tokenizer.decode(s.labels) == "new fox"]
    before = [spelling for spelling in found if not spelling.after_mark]
    assert before[0].labels == tuple(tokenizer.encode("new fox")) and len({s.labels for s in before}) == len(before) > 1
    assert {spelling.own_length for spelling in before} == {len(before[0].labels)}
    assert max(len(spelling.labels) for spelling in before) == len(before[0].labels) + 1


def test_characters_without_pieces_are_named(tokenizer):
    with pytest.raises(ConfigError, match=whole(
        "the model's tokenizer has no pieces for parts of the phrases 'Ærø fox' (Æ, ø), '日' (日); leave them out, or "
        "spell them with other characters"
    )):  # fmt: skip
        spellings(tokenizer, [("new", 1.0), ("Ærø fox", 1.0), ("日", 1.0)])


def test_a_phrase_of_which_one_case_has_pieces_is_taken(tokenizer):
    assert tokenizer.out_of_vocabulary("York").__len__() == 0 and tokenizer.out_of_vocabulary("THE")
    assert {tokenizer.decode(each.labels) for each in spellings(tokenizer, [("THE", 1.0)])} >= {"the"}


def test_a_phrase_that_is_too_long_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=ending("pieces; a phrase has at most 63")):
        spellings(tokenizer, [("fox " * 70, 1.0)])
    longest = " ".join(["FOX"] * MAX_LABELS)
    assert {len(each.labels) for each in spellings(tokenizer, [(longest, 1.0)])} == {MAX_LABELS}


def test_a_file_of_phrases(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_bytes("\ufeffNew York\t2.5\r\n\r\n  fox  \nÆrø\u0085x\t1\n".encode())
    assert checked(read_phrases(path)) == (("New York", 2.5), ("fox", 1.0), ("Ærø x", 1.0))
    path.write_text("a\nb\tmuch\n")
    message = ending("line 2: a phrase and a tab are followed by its boost, a number, not 'much'")
    with pytest.raises(ConfigError, match=message):
        read_phrases(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=ending("phrases.txt: it is not text in UTF-8")):
        read_phrases(path)
    with pytest.raises(ConfigError, match=ending("none.txt: it can't be read: No such file or directory")):
        read_phrases(tmp_path / "none.txt")
