"""Reads the pieces of a SentencePiece model."""

from typing import Any, NamedTuple

import sentencepiece

from convert.errors import ConvertError, reason

MAX_MODEL_BYTES = 16 << 20  # one of 13,087 pieces has 0.5 MB
MAX_PIECES = 1 << 17
PIECE = 0x0A  # the tag of a piece in the model's protocol buffer


class Piece(NamedTuple):
    text: str
    score: float


def pieces(model: bytes, name: str = "the tokenizer") -> list[Piece]:
    """Returns the pieces of a SentencePiece model, by label.

    Args:
      name: of the model in messages.

    Raises:
      ConvertError: `model` is not a SentencePiece model.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise ConvertError(f"{name} is larger than {MAX_MODEL_BYTES >> 20} MB")
    if (
        model.count(bytes([PIECE])) > MAX_PIECES and _count(model) > MAX_PIECES
    ):  # first: loading millions takes gigabytes
        raise ConvertError(f"{name} has more than {MAX_PIECES} pieces")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        found = [Piece(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    except (RuntimeError, ValueError) as error:
        raise ConvertError(f"{name} is not a SentencePiece model: {reason(error)}") from None
    if not found:
        raise ConvertError(f"{name} is not a SentencePiece model, or has no pieces")
    return found


def _count(model: bytes) -> int:
    """Returns the number of pieces in a model's protocol buffer, as far as it is well-formed."""
    count = at = 0
    while at < len(model):
        tag, at = _varint(model, at)
        match tag & 7:  # the type of the field
            case 0:
                _, at = _varint(model, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(model, at)
                count, at = count + (tag == PIECE), at + length
            case 5:
                at += 4
            case _:
                break
    return count


def _varint(model: bytes, at: int) -> tuple[int, int]:
    """Returns the number at a byte of a protocol buffer, and the byte after it."""
    value = shift = 0
    while at < len(model) and shift < 64:
        byte = model[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at


def empty_model() -> Any:
    """Returns an empty SentencePiece model as a protocol buffer."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # protobuf raises its own error if it is older than the one sentencepiece was built with
        raise ConvertError(f"sentencepiece needs a newer protobuf (pip install --upgrade protobuf): {error}") from None
    return sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
