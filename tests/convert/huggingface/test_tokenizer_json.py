import copy
import json

import pytest

from convert.errors import ConvertError
from convert.huggingface import tokenizer_json
from convert.huggingface.tokenizer_json import from_json, to_json
from convert.pieces import empty_model, pieces
from nemojax.bundled import SMALL
from nemojax.text.tokenizer import Tokenizer
from tests.convert.samples import tokenizer
from tests.helpers.messages import whole

MODEL = tokenizer(40)
JSON = to_json(MODEL)


def transformers_decode(values: dict, labels: list[int]) -> str:
    """Decodes labels as transformers' decoder is defined, without special tokens.

    A space mark becomes a space, except at the front of the first piece, where it is removed.
    """
    special = {token["id"] for token in values["added_tokens"] if token["special"]}
    texts = {label: text for text, label in values["model"]["vocab"].items()}
    shown = [texts[label] for label in labels if label not in special]
    parts = [text.lstrip("▁").replace("▁", " ") if i == 0 else text.replace("▁", " ") for i, text in enumerate(shown)]
    text = "".join(parts)
    return text.lstrip(" ") if values["decoder"]["type"] == "Sequence" else text


def test_pieces():
    found = pieces(MODEL)
    assert len(found) == 40 and found[0].text == "<unk>" and found[1] == ("▁e", 0.0) and found[2].score == -1


def test_layout_of_the_json():
    assert json.loads(json.dumps(JSON)) == JSON
    assert [(t["id"], t["content"], t["special"]) for t in JSON["added_tokens"]] == [
        (0, "<unk>", True),
        (40, "<pad>", True),
        (41, "<blank>", True),
    ]
    assert JSON["model"]["vocab"] == {piece.text: label for label, piece in enumerate(pieces(MODEL))}
    assert JSON["model"]["merges"] == [
        *(["▁", letter] for letter in "etaoinshrdl"),  # by descending score
        *(["e", letter] for letter in "etaoi"),
    ]
    assert {key: value for key, value in JSON["model"].items() if key not in ("vocab", "merges")} == {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    assert all(flags.items() <= token.items() for token in JSON["added_tokens"])
    assert JSON["normalizer"] == {
        "type": "Sequence",
        "normalizers": [
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        ],
    }
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    assert JSON["pre_tokenizer"] == metaspace and JSON["decoder"]["decoders"][0] == metaspace
    assert JSON["version"] == "1.0" and JSON["truncation"] is JSON["padding"] is JSON["post_processor"] is None


def test_merges_of_one_piece_are_ordered_as_transformers_orders_them():
    """Of equal scores, the longer left part comes first."""
    proto = empty_model()
    for text, score in (("a", 0.0), ("b", 0.0), ("ab", -1.0), ("ba", -1.0), ("aba", -1.0), ("bb", -0.5)):
        proto.pieces.add(piece=text, score=score)
    merges = tokenizer_json._merges(proto, {piece.piece: label for label, piece in enumerate(proto.pieces)})
    assert [" ".join(merge) for merge in merges] == ["b b", "ab a", "a ba", "a b", "b a"]


def test_the_tokenizers_settings():
    assert tokenizer_json.to_tokenizer_config("[UNK]") == {
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
        "pad_token": "<pad>",
        "processor_class": "NemotronAsrStreamingProcessor",
        "tokenizer_class": "ParakeetTokenizer",
        "unk_token": "[UNK]",
    }


def test_round_trip_decodes_the_same():
    model, notes = from_json(JSON, 40)
    assert notes == [] and [p.text for p in pieces(model)] == [p.text for p in pieces(MODEL)]
    before, after = Tokenizer(MODEL), Tokenizer(model)
    text = "the rain in the tent and tea"
    labels = before.encode(text)
    assert after.encode(text) == labels and after.decode(labels) == before.decode(labels)
    assert to_json(model)["model"] == JSON["model"]
    before, after = empty_model(), empty_model()
    before.ParseFromString(MODEL)
    after.ParseFromString(model)
    assert [piece.type for piece in after.pieces] == [piece.type for piece in before.pieces]
    trainer, normalizer = after.trainer_spec, after.normalizer_spec
    assert (trainer.model_type, trainer.vocab_size, trainer.byte_fallback) == (2, 40, False)
    assert (trainer.unk_id, trainer.unk_piece, trainer.unk_surface) == (0, "<unk>", "")
    assert trainer.bos_id == trainer.eos_id == trainer.pad_id == -1
    assert (normalizer.name, normalizer.precompiled_charsmap) == ("custom", b"")
    assert (normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces) == (True, True)
    merged = {left + right: rank for rank, (left, right) in enumerate(JSON["model"]["merges"])}
    scores = {piece.piece: piece.score for piece in after.pieces}
    assert scores == {text: -merged.get(text, len(merged) + label) for text, label in JSON["model"]["vocab"].items()}


@pytest.mark.parametrize("labels", [[], [1, 2, 3], [18, 1, 2], [17, 17, 19], [0, 19, 0, 1], [19, 17, 17, 1]])
@pytest.mark.parametrize("decoder", [JSON["decoder"], JSON["decoder"]["decoders"][0]], ids=["stripped", "plain"])
def test_labels_decode_as_in_transformers(labels, decoder):
    values = JSON | {"decoder": decoder}
    model, _ = from_json(values, 40)
    assert pieces(model)[17].text == "▁"
    assert Tokenizer(model).decode(labels) == transformers_decode(values, labels)
    assert to_json(model)["decoder"] == decoder


def test_byte_pieces():
    values = copy.deepcopy(JSON)
    values["model"]["vocab"] = {f"<0x{i:02X}>": i for i in range(256)} | {"<unk>": 256, "▁a": 257}
    values["model"]["merges"], values["added_tokens"] = [], []
    plain = Tokenizer(from_json(values, 258)[0])
    assert plain.decode([257, 0xC3, 0xA9]) == "a<0xC3><0xA9>"  # like transformers without the decoder for bytes
    values["decoder"]["decoders"].insert(0, {"type": "ByteFallback"})
    model, _ = from_json(values, 258)
    assert Tokenizer(model).decode([257, 0xC3, 0xA9]) == "aé"
    assert to_json(model)["decoder"] == values["decoder"]


def test_replacements_of_characters():
    """The small model's tokenizer has SentencePiece's table for NFKC."""
    model = (SMALL / "tokenizer.model").read_bytes()
    values, count = to_json(model), len(pieces(model))
    assert [step["type"] for step in values["normalizer"]["normalizers"]] == ["Precompiled", "Strip", "Replace"]
    again, notes = from_json(values, count)
    text = "\ufb01ve \uff41\uff42"  # a ligature and full-width letters
    assert notes == [] and to_json(again) == values
    assert Tokenizer(again).encode(text) == Tokenizer(model).encode(text) == Tokenizer(model).encode("five ab")


def test_kinds_of_pieces():
    model = tokenizer(40, control=(3,), user_defined=(4,))
    values = to_json(model)
    assert [(t["id"], t["special"]) for t in values["added_tokens"]] == [
        (0, True),
        (3, True),
        (4, False),
        (40, True),
        (41, True),
    ]
    again, _ = from_json(values, 40)
    assert Tokenizer(again).decode([1, 3, 4]) == "e" + pieces(model)[4].text.replace("▁", " ")
    assert to_json(again) == values | {"normalizer": to_json(again)["normalizer"]}


def test_a_padding_piece_in_the_vocabulary_is_used():
    values = copy.deepcopy(JSON)
    values["model"]["vocab"] = {"<pad>" if i == 5 else text: i for text, i in values["model"]["vocab"].items()}
    model, _ = from_json(values, 40)
    made = {token["content"]: token["id"] for token in to_json(model)["added_tokens"]}
    assert made == {"<unk>": 0, "<pad>": 5, "<blank>": 40}


def test_older_merges_and_unigrams():
    older = copy.deepcopy(JSON)
    older["model"]["merges"] = [" ".join(merge) for merge in older["model"]["merges"]]
    assert from_json(older, 40) == from_json(JSON, 40)
    unigram = copy.deepcopy(JSON)
    unigram["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[piece.text, piece.score] for piece in pieces(MODEL)]}
    made = from_json(unigram, 40)[0]
    proto = empty_model()
    proto.ParseFromString(made)
    assert proto.trainer_spec.model_type == 1 and list(pieces(made)) == list(pieces(MODEL))
    made = Tokenizer(made)
    assert made.decode([1, 2, 19]) == Tokenizer(MODEL).decode([1, 2, 19])


def test_notes_name_other_normalizers():
    values = copy.deepcopy(JSON)
    values["normalizer"]["normalizers"].append({"type": "Lowercase"})
    (note,) = from_json(values, 40)[1]
    assert note == "the normalizer 'Lowercase' of tokenizer.json is left out; it matters for encoding text only"


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda v: v.pop("model"), "not a tokenizer of byte pairs or unigrams"),
        (lambda v: v["model"].pop("vocab"), "not a tokenizer"),
        (lambda v: v["model"].update(type="WordPiece"), "not a tokenizer.*its type is WordPiece"),
        (lambda v: v["model"].update(vocab=[1, 2]), "not a tokenizer"),
        (lambda v: v["model"].update(vocab={"a": "b"}), "not a tokenizer"),
        (lambda v: v["model"].update(merges=["a b c"]), "not a tokenizer"),
        (lambda v: v["model"].update(merges=3), "not a tokenizer"),
        (lambda v: v["model"]["vocab"].pop("e"), "has no piece 18, the model has 40"),
        (lambda v: v["model"].update(unk_token="never"), "not a SentencePiece model"),
        (lambda v: v.update(added_tokens=[{"id": []}]), "not a tokenizer"),
        (
            lambda v: v.update(decoder={"type": "WordPiece"}),
            r"has the decoder {'type': 'WordPiece'}; only the decoders",
        ),
        (lambda v: v.update(decoder=None), "not a tokenizer"),
        (lambda v: v["decoder"].update(decoders=[]), "not a tokenizer"),
        (lambda v: v["decoder"]["decoders"][0].update(prepend_scheme="never"), "only the decoders that `to-hf` writes"),
        (lambda v: v["decoder"]["decoders"][0].update(replacement="_"), "only the decoders that `to-hf` writes"),
        (lambda v: v["decoder"]["decoders"].pop(), "only the decoders that `to-hf` writes"),
    ],
)
def test_values_that_are_not_a_tokenizer(change, message):
    values = copy.deepcopy(JSON)
    change(values)
    with pytest.raises(ConvertError, match=message):
        from_json(values, 40)


@pytest.mark.parametrize("values", [None, [], 3, "text", {}])
def test_values_that_are_not_a_mapping(values):
    with pytest.raises(ConvertError, match=r"tokenizer\.json is not a tokenizer"):
        from_json(values, 40)


@pytest.mark.parametrize("model", [b"", b"not a model", MODEL[:-7], b"\n\3\n\1a" * 3])
def test_bytes_that_are_not_a_sentencepiece_model(model):
    with pytest.raises(ConvertError, match="x is not a SentencePiece model"):
        pieces(model, "x")


def test_a_protobuf_that_is_too_old(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    monkeypatch.delattr("sentencepiece.sentencepiece_model_pb2", raising=False)
    with pytest.raises(
        ConvertError,
        match=whole(
            "sentencepiece needs a newer protobuf (pip install --upgrade protobuf): import of "
            "sentencepiece.sentencepiece_model_pb2 halted; None in sys.modules"
        ),
    ):
        tokenizer_json.to_json(MODEL)
