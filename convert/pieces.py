"""Reads the pieces of a SentencePiece model."""

from typing import Any, NamedTuple

import sentencepiece

from convert.errors import ConvertError, reason

MAX_MODEL_BYTES = 64 << 20


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
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        found = [Piece(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    except (RuntimeError, ValueError) as error:
        raise ConvertError(f"{name} is not a SentencePiece model: {reason(error)}") from None
    if not found:
        raise ConvertError(f"{name} is not a SentencePiece model, or has no pieces")
    return found


def empty_model() -> Any:
    """Returns an empty SentencePiece model as a protocol buffer."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # protobuf raises its own error if it is older than the one sentencepiece was built with
        raise ConvertError(f"sentencepiece needs a newer protobuf (pip install --upgrade protobuf): {error}") from None
    return sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
