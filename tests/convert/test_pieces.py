import pytest
from sentencepiece import sentencepiece_model_pb2

from convert.errors import ConvertError
from convert.pieces import MAX_MODEL_BYTES, MAX_PIECES, pieces
from tests.convert.samples import tokenizer


def test_pieces_in_the_order_of_their_labels():
    found = pieces(tokenizer(40))
    assert len(found) == 40 and found[0] == ("<unk>", 0.0) and found[1].score == 0.0 and found[2].score == -1.0


@pytest.mark.parametrize("model", [b"", b"x", b"\n", b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a" * 200_000])
def test_bytes_that_are_no_model(model):
    with pytest.raises(ConvertError, match=r"name is not a SentencePiece model|has more than"):
        pieces(model, "name")


@pytest.mark.parametrize("before", [b"", b"\x08\x80\x01", b"\x12\x02\x18\x01"])  # other fields
def test_too_many_pieces_are_counted_before_they_are_loaded(before, monkeypatch):
    one = sentencepiece_model_pb2.ModelProto()
    one.pieces.add(piece="a")
    model = before + one.SerializeToString() * (MAX_PIECES + 1)
    with pytest.raises(ConvertError, match=r"^name has more than 131072 pieces$"):
        pieces(model, "name")
    with pytest.raises(ConvertError, match="name is larger than 16 MB"):
        pieces(bytes(MAX_MODEL_BYTES + 1), "name")
