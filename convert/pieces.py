"""The pieces of a SentencePiece model."""

from typing import Any, NamedTuple

import sentencepiece

from convert.errors import ConvertError, reason

MODEL_BYTES = 64 << 20


class Piece(NamedTuple):
    text: str
    score: float


def pieces(model: bytes, name: str = "the tokenizer") -> list[Piece]:
    """The pieces of a SentencePiece model.

    Raises:
      ConvertError: it is not one.
    """
    if len(model) > MODEL_BYTES:
        raise ConvertError(f"{name} is larger than {MODEL_BYTES >> 20} MB")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        found = [Piece(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    except (RuntimeError, ValueError) as error:
        raise ConvertError(f"{name} is not a SentencePiece model: {reason(error)}") from None
    if not found:
        raise ConvertError(f"{name} is not a SentencePiece model, or has no pieces")
    return found


def _proto() -> Any:
    """An empty SentencePiece model as a protocol buffer."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # protobuf's own error where it is older than the one sentencepiece was made with
        raise ConvertError(f"sentencepiece needs a newer protobuf (pip install --upgrade protobuf): {error}") from None
    return sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
