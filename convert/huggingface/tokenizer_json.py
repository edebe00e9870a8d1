"""Converts Hugging Face's tokenizer.json to a SentencePiece model, and back.

In both directions labels decode to the same text; the unknown piece has none, as in `nemojax.text`. Text is also
encoded alike, except runs of several spaces.
"""

import base64
from collections.abc import Mapping
from typing import Any

from convert.errors import ConvertError, reason, short
from convert.pieces import empty_model, pieces

FILE = "tokenizer.json"
MARK = "▁"  # SentencePiece's character for a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of pieces in SentencePiece's format
ADDED = (CONTROL, USER_DEFINED)  # types that are matched in the text before it is split into pieces
BPE, UNIGRAM = 2, 1  # types of models in SentencePiece's format
# decoders: join bytes to characters; remove all leading spaces, as SentencePiece does
BYTES = {"type": "ByteFallback"}
STRIP = [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1000, "stop": 0}]
PAD, BLANK, UNK = "<pad>", "<blank>", "<unk>"


def from_json(values: Any, vocabulary: int) -> tuple[bytes, list[str]]:
    """Converts a parsed tokenizer.json to a SentencePiece model; also returns notes for the user.

    Args:
      vocabulary: number of pieces; later tokens (padding, blank) are left out.

    Raises:
      ConvertError: `values` is not a tokenizer of that many pieces, or SentencePiece can't decode like it.
    """
    try:
        model, added = values["model"], values.get("added_tokens") or []
        texts, scores = _vocabulary(model)
        special = {token["id"]: bool(token["special"]) for token in added}
        texts = texts | {token["id"]: token["content"] for token in added}
        unk = model.get("unk_token", UNK) if model["type"] == "BPE" else texts[model["unk_id"]]
        if not all(type(i) is int and type(text) is str for i, text in texts.items()) or type(unk) is not str:
            raise ValueError("a label is not a number, or a piece is not a string")
        bytes_join, stripped = _check_decoder(values.get("decoder"))
        charsmap, notes = _charsmap(values.get("normalizer"))
    except ConvertError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConvertError(f"{FILE} is not a tokenizer of byte pairs or unigrams: {reason(error)}") from None
    missing = next((i for i in range(vocabulary) if i not in texts), None)
    if missing is not None:
        raise ConvertError(f"{FILE} has no piece {missing}, the model has {vocabulary} pieces")

    proto = empty_model()
    for i in range(vocabulary):
        text = texts[i]
        kind = CONTROL if special.get(i) else USER_DEFINED if i in special else NORMAL
        if text == unk:
            kind = UNKNOWN
        elif bytes_join and len(text) == 6 and text.startswith("<0x"):
            kind = BYTE
        proto.pieces.add(piece=text, score=scores.get(i, 0.0), type=kind)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type = BPE if model["type"] == "BPE" else UNIGRAM
    trainer.vocab_size, trainer.byte_fallback = vocabulary, bytes_join
    trainer.unk_id = next((i for i in range(vocabulary) if texts[i] == unk), -1)
    trainer.unk_piece, trainer.unk_surface = unk, ""
    trainer.bos_id = trainer.eos_id = trainer.pad_id = -1
    normalizer.name, normalizer.precompiled_charsmap = "custom", charsmap
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = True, stripped
    serialized: bytes = proto.SerializeToString()
    if len(pieces(serialized, FILE)) != vocabulary:
        raise ConvertError(f"{FILE} does not make a SentencePiece model of {vocabulary} pieces")
    return serialized, notes


def _vocabulary(model: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, float]]:
    """Returns the text and the score of each label. The earlier a pair is merged, the higher its score."""
    if model["type"] == "Unigram":
        texts = {i: text for i, (text, _) in enumerate(model["vocab"])}
        return texts, {i: float(score) for i, (_, score) in enumerate(model["vocab"])}
    if model["type"] != "BPE":
        raise ValueError(f"its type is {model['type']}")
    texts = {i: text for text, i in model["vocab"].items()}
    rank: dict[str, int] = {}
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank.setdefault(left + right, len(rank))
    last = len(rank)
    return texts, {i: -float(rank.get(text, last + i)) for i, text in texts.items()}


def _check_decoder(decoder: Any) -> tuple[bool, bool]:
    """Returns whether byte pieces are joined to characters, and whether all leading spaces are removed.

    Raises ConvertError if SentencePiece can't decode in the same way.
    """
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    bytes_join = steps[0] == BYTES
    steps = steps[1:] if bytes_join else steps
    stripped = steps[1:] == STRIP
    space = steps[0] if len(steps) == 1 or stripped else {}
    marks = (space.get("replacement", MARK), space.get("prepend_scheme", "always"))
    if space.get("type") != "Metaspace" or marks not in ((MARK, "always"), (MARK, "first")):
        raise ConvertError(
            f"{FILE} has the decoder {short(decoder)}; only the decoders that `to-hf` writes are supported"
        )
    return bytes_join, stripped


def _charsmap(normalizer: Any) -> tuple[bytes, list[str]]:
    """Returns SentencePiece's table of character replacements, empty if there is none, and notes on steps left out."""
    charsmap, notes = b"", []
    steps = (
        [] if normalizer is None else normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    )
    for step in steps:
        if step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"] or "")
        elif step["type"] not in ("Strip", "Replace"):  # trailing spaces, and runs of spaces
            notes.append(
                f"the normalizer {short(step['type'])} of {FILE} is left out; it matters for encoding text only"
            )
    return charsmap, notes


def to_json(model: bytes) -> dict[str, Any]:
    """Converts a SentencePiece model to a tokenizer.json like the one that transformers' converter writes.

    Padding and blank follow the pieces, in this order, as in the release: blank is one label later than the model's.
    The decoder differs from that converter's, which keeps a leading space for each leading space mark: this one
    treats leading spaces as the SentencePiece model does.
    """
    proto = empty_model()
    proto.ParseFromString(model)
    vocabulary = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    added = {i: (piece.piece, piece.type == CONTROL) for i, piece in enumerate(proto.pieces) if piece.type in ADDED}
    for token in (proto.trainer_spec.unk_piece, PAD, BLANK):
        label = vocabulary.get(token, max(len(proto.pieces), 1 + max(added, default=0)))
        added[label] = (token, True)
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    decoders: list[Any] = [BYTES] if any(piece.type == BYTE for piece in proto.pieces) else []
    decoders += [metaspace, *(STRIP if proto.normalizer_spec.remove_extra_whitespaces else [])]
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    spaces = [
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": MARK},
    ]
    precompiled = [{"type": "Precompiled", "precompiled_charsmap": charsmap}] if charsmap else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": label,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": special,
            }
            for label, (token, special) in sorted(added.items())
        ],
        "normalizer": {"type": "Sequence", "normalizers": precompiled + spaces},
        "pre_tokenizer": metaspace,
        "post_processor": None,
        "decoder": metaspace if len(decoders) == 1 else {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": proto.trainer_spec.unk_piece,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(proto, vocabulary),
        },
    }


def _merges(proto: Any, vocabulary: Mapping[str, int]) -> list[list[str]]:
    """Returns the pairs of pieces that join to a piece, by descending score of that piece."""
    found = []
    for piece in proto.pieces:
        cuts = [(piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece))]
        pairs = [pair for pair in cuts if pair[0] in vocabulary and pair[1] in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(piece.score, left, right) for left, right in pairs]
    found.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [[left, right] for _, left, right in found]


def to_tokenizer_config(unk: str = UNK) -> dict[str, Any]:
    """Returns a tokenizer_config.json."""
    return {
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
        "pad_token": PAD,
        "processor_class": "NemotronAsrStreamingProcessor",
        "tokenizer_class": "ParakeetTokenizer",
        "unk_token": unk,
    }
