import pytest
from sentencepiece import sentencepiece_model_pb2

import convert.pieces
from convert.errors import ConvertError
from convert.pieces import MAX_MODEL_BYTES, MAX_PIECES, pieces
from tests.convert.samples import tokenizer
from tests.helpers.messages import whole


def test_pieces_in_the_order_of_their_labels():
    found = pieces(tokenizer(40))
    assert len(found) == 40 and found[0] == ("<unk>", 0.0) and found[1].score == 0.0 and found[2].score == -1.0


@pytest.mark.parametrize("model", [b"", b"x", b"\n", b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a" * 200_000])
def test_bytes_that_are_no_model(model):
    with pytest.raises(ConvertError, match=r"name is not a SentencePiece model|has more than"):
        pieces(model, "name")


def test_limits_are_what_they_say(monkeypatch):
    model = tokenizer(40)
    monkeypatch.setattr(convert.pieces, "MAX_PIECES", 40)
    monkeypatch.setattr(convert.pieces, "MAX_MODEL_BYTES", len(model))
    assert len(pieces(model, "name")) == 40
    monkeypatch.setattr(convert.pieces, "MAX_PIECES", 39)
    with pytest.raises(ConvertError, match=r"^name has more than 39 pieces$"):
        pieces(model, "name")


ONE = b"\x0a\x03\x0a\x01a"  # a piece


@pytest.mark.parametrize(
    "model,count",
    [
        (b"", 0),
        (ONE * 3, 3),
        (b"\x08\x80\x01" + ONE, 1),  # a number of two bytes
        (b"\x09" + bytes(8) + ONE, 1),  # 8 bytes
        (b"\x0d" + bytes(4) + ONE, 1),  # 4 bytes
        (b"\x12\x05" + ONE + ONE, 1),  # a text that looks like a piece
        (b"\x92\x01\x05" + ONE, 0),  # a field whose number takes two bytes
        (ONE + b"\x0b" + ONE, 1),  # the beginning of a group: no field of this format
        (ONE + b"\x0a\x7f" + ONE, 2),  # longer than the file
        (b"\x08" + b"\xff" * 9 + b"\x01" + ONE, 1),  # the longest number
    ],
)
def test_pieces_are_counted_by_the_fields_of_the_file(model, count):
    assert convert.pieces._count(model) == count


def test_numbers_of_the_format():
    read = convert.pieces._varint
    assert read(b"\x96\x01", 0) == (150, 2) and read(b"\x00\x7f\x00", 1) == (127, 2)
    assert read(b"\x80", 0) == (0, 1) and read(b"\xff" * 20, 0)[1] == 10


@pytest.mark.parametrize("before", [b"", b"\x08\x80\x01", b"\x12\x02\x18\x01"])  # other fields
def test_too_many_pieces_are_counted_before_they_are_loaded(before, monkeypatch):
    one = sentencepiece_model_pb2.ModelProto()
    one.pieces.add(piece="a")
    model = before + one.SerializeToString() * (MAX_PIECES + 1)
    with pytest.raises(ConvertError, match=r"^name has more than 131072 pieces$"):
        pieces(model, "name")
    with pytest.raises(ConvertError, match=whole("name is larger than 16 MB")):
        pieces(bytes(MAX_MODEL_BYTES + 1), "name")
