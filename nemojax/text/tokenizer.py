"""Labels to text and back: a SentencePiece model, whole and incrementally."""

import re
from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor

from nemojax.errors import TokenizerError


class Tokenizer:
    """A SentencePiece model.

    Args:
      model: the serialised model, the bytes of a `tokenizer.model`.

    Raises:
      TokenizerError: the bytes are not such a model.
    """

    def __init__(self, model: bytes):
        self.model, self._processor = model, SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            self._pieces = tuple(self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size()))
        except (RuntimeError, ValueError):
            self._pieces = ()
        # any piece with a text of its own: once a text has begun, it stands for all before
        visible = (i for i in range(self.size) if not self.is_byte(i) and self.decode([i]))
        anchor = next(visible, None)
        if anchor is None:  # empty bytes load as a model without pieces
            raise TokenizerError(f"the tokenizer ({len(model)} bytes) is not a SentencePiece model, or it is damaged")
        self.anchor = anchor
        self._continuations: dict[int, str | None] = {}

    @property
    def size(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    def piece(self, label: int) -> str:
        self._check([label])
        return self._pieces[label]

    def is_byte(self, label: int) -> bool:
        """Whether a piece stands for one byte of a character's UTF-8 form, like `<0xE2>`."""
        self._check([label])
        return self._processor.is_byte(label)

    def byte(self, label: int) -> int:
        """The byte that such a piece stands for."""
        return int(self.piece(label)[1:-1], 16)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def out_of_vocabulary(self, text: str) -> list[str]:
        """The parts of a text that the model has no piece for, in its order; `encode` gives its unknown piece there."""
        labels, unknown = self.encode(text), self._processor.unk_id()
        if unknown not in labels:
            return []
        pieces = self._processor.encode_as_pieces(text)
        return [piece for piece, label in zip(pieces, labels, strict=True) if label == unknown]

    def decode(self, labels: Sequence[int]) -> str:
        """The text of some labels. Raises TokenizerError for a label that is out of range."""
        self._check(labels)
        return self._processor.decode(list(labels))

    def continuation(self, label: int) -> str | None:
        """What a piece adds to a text that has begun; None for a byte, whose text depends on its neighbours."""
        if label not in self._continuations:
            text = None if self.is_byte(label) else self.decode([self.anchor, label])[len(self.decode([self.anchor])) :]
            self._continuations[label] = text
        return self._continuations[label]

    def words(self, labels: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of some labels: (text, index of its first label, index of its last).

        A word is what stands between spaces, with its punctuation. A label that shows nothing but a space, or
        the first bytes of a character, belongs to the word that follows.
        """
        text, sources, first = "", [], 0  # sources: of each character, its first and last label
        detokenizer = self.incremental()
        for index, label in enumerate(labels):
            shown = detokenizer.push([label])
            if self.is_byte(label) and not any(self.is_byte(following) for following in labels[index + 1 : index + 2]):
                shown += detokenizer.finish()  # no byte of the same character can follow
            text += shown
            sources += [(first, index)] * len(shown)
            if shown.strip(" "):
                first = index + 1
        return [
            (word.group(), sources[word.start()][0], sources[word.end() - 1][1]) for word in re.finditer("[^ ]+", text)
        ]

    def incremental(self) -> "Detokenizer":
        """A decoder of one stream's labels, for as they come."""
        return Detokenizer(self)

    def _check(self, labels: Sequence[int]) -> None:
        for label in labels:
            if not 0 <= label < self.size:
                raise TokenizerError(f"label {label} is not one of the tokenizer's, 0 to {self.size - 1}")


class Detokenizer:
    """Text of a growing sequence of labels: all that `push` and `finish` give, joined, is `decode` of them all.

    How a piece reads depends on those before it in two ways only: spaces before the first text are dropped, and
    the bytes of one character belong together. So labels are decoded behind all earlier ones until there is
    text, and behind any one piece with text from then on; bytes wait until their character is complete.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._before_text = ""
        self._waiting: list[int] = []

    def push(self, labels: Sequence[int]) -> str:
        """Takes in more labels; gives the text that is new, and that will not change."""
        tokenizer = self._tokenizer
        if self._before_text and not self._waiting:
            texts = [text for label in labels if (text := tokenizer.continuation(label)) is not None]
            if len(texts) == len(labels):
                return "".join(texts)
        labels = [*self._waiting, *labels]
        run = len(labels)
        while run and tokenizer.is_byte(labels[run - 1]):
            run -= 1
        settled = run + settled_bytes(bytes(tokenizer.byte(label) for label in labels[run:]))
        self._waiting = labels[settled:]
        return self._show(labels[:settled])

    def finish(self) -> str:
        """The text of bytes that have waited in vain."""
        labels, self._waiting = self._waiting, []
        return self._show(labels)

    def _show(self, labels: list[int]) -> str:
        text = self._tokenizer.decode(self._before + labels)[len(self._before_text) :]
        if not self._before_text:
            self._before += labels
        if text and not self._before_text:
            self._before = [self._tokenizer.anchor]
            self._before_text = self._tokenizer.decode(self._before)
        return text


def settled_bytes(data: bytes) -> int:
    """How many bytes at the front of `data` read the same whatever follows; the others begin a UTF-8 character."""
    start = 0
    while True:
        try:
            data[start:].decode()
            return len(data)
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return start + error.start
            start += error.start + 1  # one byte that fits nowhere
