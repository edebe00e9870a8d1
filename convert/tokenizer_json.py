"""SentencePiece models and Hugging Face's tokenizer.json, either made from the other."""

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from convert.errors import ConvertError, short

MODEL_BYTES = 64 << 20
ModelProto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]


def parse_model(model: bytes, name: str) -> Any:
    """A SentencePiece model, checked by loading it.

    Raises:
      ConvertError: it is not one.
    """
    if len(model) > MODEL_BYTES:
        raise ConvertError(f"{name} is larger than {MODEL_BYTES >> 20} MB")
    parsed = ModelProto()
    try:
        parsed.ParseFromString(model)
        count = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ConvertError(f"{name} is not a SentencePiece model: {short(str(error))}") from None
    if not count or count != len(parsed.pieces):
        raise ConvertError(f"{name} is not a SentencePiece model with pieces")
    return parsed


def pieces(model: bytes, name: str = "the tokenizer") -> list[str]:
    return [piece.piece for piece in parse_model(model, name).pieces]
