import io
from itertools import chain, pairwise

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.config import TextConfig
from nemojax.errors import TokenizerError
from nemojax.text.tokenizer import Tokenizer, settled_bytes
from tests.helpers.messages import whole

SENTENCES = [
    "The quick brown fox, isn't it, jumps over the lazy dog.",
    "Hello there; how are you? It's a fine day.",
    "She sells sea shells (by the sea), doesn't she?",
]
BYTES = {"byte_fallback": True, "vocab_size": 320}
KINDS = {
    "bpe": {"model_type": "bpe", "vocab_size": 64},
    "unigram": {"model_type": "unigram", "vocab_size": 64},
    "bpe-bytes": {"model_type": "bpe", **BYTES},
    "unigram-bytes": {"model_type": "unigram", **BYTES},
    "spaces-kept": {"model_type": "bpe", **BYTES, "remove_extra_whitespaces": False},
    "no-prefix": {"model_type": "unigram", **BYTES, "add_dummy_prefix": False, "bos_id": 0, "eos_id": 1, "unk_id": 2},
    "suffix": {"model_type": "bpe", **BYTES, "treat_whitespace_as_suffix": True, "user_defined_symbols": ["[x]"]},
    "joined": {"model_type": "bpe", **BYTES, "user_defined_symbols": ["<EOU>"]},
}
SETTINGS = {"joined": TextConfig(events=("<EOU>",), join_punctuation=True)}


def trained(**options) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5),
        model_writer=model,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Tokenizer]:
    return {name: Tokenizer(trained(**options), SETTINGS.get(name, TextConfig())) for name, options in KINDS.items()}


def label_lists(tokenizer: Tokenizer):
    """Lists of any labels, and of difficult ones: bytes, the unknown piece, control pieces, spaces, punctuation."""
    difficult = ("\u2581", "\u2581t", ".", ",", "?", ";", "<EOU>")
    hard = [i for i in range(tokenizer.size) if tokenizer.is_byte(i) or tokenizer.piece(i) in difficult]
    encoded = st.sampled_from([tokenizer.encode(text) for text in ("café 😀 日本", "  two  spaces ", "dog.", "é")])
    part = st.lists(st.integers(0, tokenizer.size - 1)) | st.lists(st.sampled_from([0, 1, 2, *hard])) | encoded
    return st.lists(part, max_size=4).map(lambda parts: list(chain(*parts)))


def test_training_is_deterministic_and_models_are_small(tokenizers):
    again = trained(**KINDS["bpe-bytes"])
    assert tokenizers["bpe-bytes"].model == again and len(again) < 300_000


@pytest.mark.parametrize("kind", KINDS)
def test_text_there_and_back(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = "The lazy dog, isn't it?"
    labels = tokenizer.encode(text)
    assert tokenizer.decode(labels).strip() == text
    assert tokenizer.decode(tuple(labels)) == tokenizer.decode(labels)
    assert all(tokenizer.piece(label) for label in labels) and max(labels) < tokenizer.size


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_pieces_pushed_in_any_split_give_the_whole_text(tokenizers, kind, data):
    tokenizer = tokenizers[kind]
    labels = data.draw(label_lists(tokenizer))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=8)))
    detokenizer = tokenizer.incremental()
    bounds = [0, *cuts, len(labels)]
    shown, whole = "", tokenizer.decode(labels)
    for a, b in pairwise(bounds):
        assert shown + detokenizer.preview(labels[a:]) == whole  # and the next labels are not changed by it
        shown += detokenizer.push(labels[a:b])
    assert shown + detokenizer.finish() == whole


def label_of(tokenizer: Tokenizer, piece: str) -> int:
    return next(i for i in range(tokenizer.size) if tokenizer.piece(i) == piece)


def test_the_unknown_piece_has_no_text(tokenizers):
    for tokenizer in tokenizers.values():
        dog, unknown = tokenizer.encode("dog"), label_of(tokenizer, "<unk>")
        assert tokenizer.decode([unknown, *dog, unknown]) == tokenizer.decode(dog)
        assert tokenizer.is_silent(unknown) and tokenizer.event(unknown) is None
        assert tokenizer.words([unknown, *dog])[0][1] == 1


def test_events_are_no_letters(tokenizers):
    tokenizer = tokenizers["joined"]
    event, dog = label_of(tokenizer, "<EOU>"), tokenizer.encode("dog")
    assert tokenizer.event(event) == "<EOU>" and tokenizer.event(dog[0]) is None
    labels = [event, *dog, event, event, *dog[:-1], event, dog[-1], event]
    assert tokenizer.decode(labels) == "dog dog"
    assert tokenizer.words(labels) == [("dog", 1, len(dog)), ("dog", len(dog) + 3, len(labels) - 2)]
    with pytest.raises(
        TokenizerError, match=whole("the settings name the event '<EOB>', which is not a piece of the tokenizer")
    ):
        Tokenizer(tokenizer.model, TextConfig(events=("<EOU>", "<EOB>")))
    assert Tokenizer(tokenizer.model).decode(labels).startswith("<EOU>")  # an event only where the settings say so


def test_the_space_before_punctuation(tokenizers):
    tokenizer = tokenizers["joined"]
    event, mark, dot, comma = (label_of(tokenizer, piece) for piece in ("<EOU>", "\u2581", ".", ","))
    dog = tokenizer.encode("dog")
    labels = [*dog, mark, event, dot, mark, comma, mark, mark, dot, *dog, mark]
    assert tokenizer.decode(labels) == "dog., . dog "
    assert [text for text, _, _ in tokenizer.words(labels)] == ["dog.,", ".", "dog"]
    assert Tokenizer(tokenizer.model, TextConfig(("<EOU>",))).decode(labels) == "dog . ,  . dog "
    detokenizer = tokenizer.incremental()
    assert [detokenizer.push([label]) for label in (mark, event, dot, mark, dog[0])][:4] == ["", "", ".", ""]
    detokenizer = tokenizer.incremental()
    assert detokenizer.push([*dog, mark]) == "dog" and detokenizer.finish() == " "


def test_labels_without_text_count_as_context(tokenizers):
    tokenizer = tokenizers["spaces-kept"]
    control, mark, word = 1, tokenizer.encode(" ")[0], tokenizer.encode("dog")
    assert tokenizer.piece(control) == "<s>" and tokenizer.piece(mark) == "\u2581"
    for labels in ([mark, control, *word], [control, mark, *word], [control, *word], [mark, mark, *word]):
        detokenizer = tokenizer.incremental()
        assert "".join(detokenizer.push([label]) for label in labels) == tokenizer.decode(labels)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_words_are_the_text_between_spaces(tokenizers, kind, data):
    tokenizer = tokenizers[kind]
    labels = data.draw(label_lists(tokenizer))
    words = tokenizer.words(labels)
    assert [text for text, _, _ in words] == [part for part in tokenizer.decode(labels).split(" ") if part]
    assert all(0 <= first <= last < len(labels) for _, first, last in words)
    assert words == sorted(words, key=lambda word: word[1:])


def test_words_know_their_labels(tokenizers):
    tokenizer = tokenizers["bpe"]
    labels = tokenizer.encode("The fox, isn't it?")
    words = tokenizer.words(labels)
    assert " ".join(text for text, _, _ in words) == tokenizer.decode(labels) == "The fox, isn't it?"
    assert words[0][1] == 0 and words[-1][2] == len(labels) - 1
    for (_, _, last), (_, first, _) in pairwise(words):
        assert first == last + 1
    for text, first, last in words:
        assert tokenizer.piece(labels[first]).startswith("\u2581")
        assert tokenizer.decode(labels[first : last + 1]) == text


def test_a_word_begins_at_the_bare_space_mark_before_it(tokenizers):
    tokenizer = tokenizers["bpe"]
    mark, a, b = (next(i for i in range(tokenizer.size) if tokenizer.piece(i) == piece) for piece in "\u2581xz")
    assert tokenizer.words([mark, a, b, mark, b, a, mark]) == [("xz", 0, 2), ("zx", 3, 5)]
    assert tokenizer.words([]) == [] and tokenizer.words([mark, mark]) == []


def test_characters_of_several_bytes_wait_until_complete(tokenizers):
    tokenizer = tokenizers["bpe-bytes"]
    byte = {tokenizer.byte(i): i for i in range(tokenizer.size) if tokenizer.is_byte(i)}
    assert sorted(byte) == list(range(256))
    detokenizer = tokenizer.incremental()
    assert [detokenizer.push([byte[b]]) for b in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    # an incomplete character, then a complete one
    assert [detokenizer.push([byte[b]]) for b in b"\xe2\x82A\xc3\xa9\xff\xc3"] == ["", "", "��A", "", "é", "�", ""]
    assert detokenizer.finish() == "�" and detokenizer.finish() == ""
    word = [*tokenizer.encode("a"), byte[0xC3], byte[0xA9], byte[0xE2], *tokenizer.encode("dog")]
    last = word.index(byte[0xE2])
    assert tokenizer.words(word)[0] == ("aé�", 0, last) and tokenizer.words(word)[1][:2] == ("dog", last + 1)


@given(st.binary(max_size=12))
def test_settled_bytes_read_the_same_whatever_follows(data):
    settled = settled_bytes(data)
    assert len(data) - 3 <= settled <= len(data)
    rest = data[settled:]
    if rest:  # the rest is the beginning of a valid character
        tails = (b"\x80", b"\xa0", b"\xbf", b"\x90")
        options = [first + second + third for first in tails for second in (b"", *tails) for third in (b"", *tails)]
        assert any(is_character(rest + option) for option in options)


def is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def test_a_push_costs_the_same_however_long_the_stream(tokenizers, monkeypatch):
    tokenizer, plain, decoded = tokenizers["bpe-bytes"], Tokenizer.unjoined, []
    monkeypatch.setattr(Tokenizer, "unjoined", lambda self, labels: decoded.append(len(labels)) or plain(self, labels))
    labels = np.random.default_rng(0).integers(0, tokenizer.size, 2000).tolist()
    detokenizer = tokenizer.incremental()
    text = "".join(detokenizer.push([label]) for label in labels) + detokenizer.finish()
    assert max(decoded) <= 5 and text == plain(tokenizer, labels)


@pytest.mark.parametrize("model", [b"", b"not a model", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_other_bytes_are_not_a_model(model):
    with pytest.raises(TokenizerError, match=rf"the tokenizer \({len(model)} bytes\) is not a SentencePiece model"):
        Tokenizer(model)


def test_a_truncated_model_is_refused(tokenizers):
    model = tokenizers["bpe"].model
    for cut in (1, 10, 100, len(model) // 2, len(model) - 1):
        with pytest.raises(TokenizerError):
            Tokenizer(model[:cut])


@pytest.mark.parametrize("label", [-1, 10**6])
def test_labels_out_of_range_are_named(tokenizers, label):
    tokenizer = tokenizers["bpe"]
    for use in (tokenizer.decode, tokenizer.incremental().push, tokenizer.words):
        with pytest.raises(TokenizerError, match=f"label {label} is out of range: the tokenizer has labels 0 to"):
            use([1, label])
    with pytest.raises(TokenizerError):
        tokenizer.piece(label)


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_has_no_piece(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tokenizer.out_of_vocabulary("The lazy dog.") == [] == tokenizer.out_of_vocabulary("")
    has_bytes = KINDS[kind].get("byte_fallback", False)
    assert tokenizer.out_of_vocabulary("a 日本 dog 😀.") == ([] if has_bytes else ["日本", "😀"])
