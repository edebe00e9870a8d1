"""Labels to text and back, with a SentencePiece model: all at once, or incrementally."""

import re
from collections.abc import Sequence
from copy import copy

from sentencepiece import SentencePieceProcessor

from nemojax.config import TextConfig
from nemojax.errors import TokenizerError

SPACE_BEFORE_PUNCTUATION = re.compile(" ([.,?!;:])")


class Tokenizer:
    """A SentencePiece model.

    Two kinds of labels have no text: the unknown piece, and the pieces that the settings name as events. Texts are
    those of the other labels.

    Args:
      model: the serialized model, the bytes of a `tokenizer.model`.
      settings: how labels become text.

    Raises:
      TokenizerError: the bytes are not a SentencePiece model, or an event of the settings is not a piece of it.
    """

    def __init__(self, model: bytes, settings: TextConfig = TextConfig()):  # noqa: B008  frozen
        self.model, self.settings, self._processor = model, settings, SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            self._pieces = tuple(self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size()))
        except (RuntimeError, ValueError):
            self._pieces = ()
        labels = {piece: label for label, piece in enumerate(self._pieces)}
        self._events = {labels[event]: event for event in settings.events if event in labels}
        self._silent = frozenset([*self._events, self._processor.unk_id()] if self._pieces else [])
        # a visible piece: once the text has begun, any such piece can replace all labels before
        visible = (i for i in range(self.size) if not self.is_byte(i) and self.unjoined([i]))
        anchor = next(visible, None)
        if anchor is None:  # empty bytes load as a model without pieces
            raise TokenizerError(f"the tokenizer ({len(model)} bytes) is not a SentencePiece model, or it is damaged")
        if missing := [event for event in settings.events if event not in labels]:
            raise TokenizerError(f"the settings name the event {missing[0]!r}, which is not a piece of the tokenizer")
        self.anchor = anchor
        self._continuations: dict[int, str | None] = {}

    @property
    def size(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    def piece(self, label: int) -> str:
        """Returns the piece of a label. Raises TokenizerError for a label that is out of range."""
        self._check([label])
        return self._pieces[label]

    def is_byte(self, label: int) -> bool:
        """Returns whether a piece is one byte of a character in UTF-8, like `<0xE2>`."""
        self._check([label])
        is_byte: bool = self._processor.is_byte(label)
        return is_byte

    def byte(self, label: int) -> int:
        """Returns the value of a byte piece."""
        return int(self.piece(label)[1:-1], 16)

    def encode(self, text: str) -> list[int]:
        """Returns the labels of a text."""
        labels: list[int] = self._processor.encode(text)
        return labels

    def out_of_vocabulary(self, text: str) -> list[str]:
        """Returns the parts of a text that have no piece, in its order; `encode` gives the unknown label for them."""
        labels, unknown = self.encode(text), self._processor.unk_id()
        if unknown not in labels:
            return []
        pieces = self._processor.encode_as_pieces(text)
        return [piece for piece, label in zip(pieces, labels, strict=True) if label == unknown]

    def decode(self, labels: Sequence[int]) -> str:
        """Returns the text of labels. Raises TokenizerError for a label that is out of range."""
        text = self.unjoined(labels)
        return SPACE_BEFORE_PUNCTUATION.sub(r"\1", text) if self.settings.join_punctuation else text

    def unjoined(self, labels: Sequence[int]) -> str:
        """Returns what `decode` does, with every space before punctuation."""
        self._check(labels)
        text: str = self._processor.decode([label for label in labels if label not in self._silent])
        return text

    def has_text(self, label: int) -> bool:
        """Returns whether a label has text of its own: it is neither unknown nor a control, an event or a byte."""
        return not (self.is_silent(label) or self.is_byte(label) or self._processor.is_control(label))

    def is_silent(self, label: int) -> bool:
        """Returns whether a label has no text: an event, or the unknown piece."""
        return label in self._silent

    def event(self, label: int) -> str | None:
        """Returns the piece of a label that marks an event; None for every other label."""
        return self._events.get(label)

    def continuation(self, label: int) -> str | None:
        """Returns the text that a piece adds once the text has begun; None for a byte, which depends on the next."""
        if label not in self._continuations:
            before = self.unjoined([self.anchor])
            text = None if self.is_byte(label) else self.unjoined([self.anchor, label])[len(before) :]
            self._continuations[label] = text
        return self._continuations[label]

    def words(self, labels: Sequence[int]) -> list[tuple[str, int, int]]:
        """Splits labels into words: (text, index of the first label, index of the last label).

        A word is the text between spaces, with its punctuation. A label that shows only a space, or the first
        bytes of a character, belongs to the word that follows. A label without text belongs to no word, also where it
        is between two labels of one.
        """
        text, sources = "", []  # sources: for each character, the indices of its first and last label
        detokenizer = self.incremental()
        self._check(labels)
        spoken = [(index, label) for index, label in enumerate(labels) if label not in self._silent]
        first = spoken[0][0] if spoken else 0
        for place, (index, label) in enumerate(spoken):
            shown, following = detokenizer.push([label]), spoken[place + 1 : place + 2]
            if self.is_byte(label) and not any(self.is_byte(after) for _, after in following):
                shown += detokenizer.settle()  # the next label is no byte, so it can't complete the character
            text += shown
            sources += [(first, index)] * len(shown)
            if shown.strip(" ") and following:
                first = following[0][0]
        return [
            (word.group(), sources[word.start()][0], sources[word.end() - 1][1]) for word in re.finditer("[^ ]+", text)
        ]

    def incremental(self) -> "Detokenizer":
        """Returns a decoder for the labels of one stream."""
        return Detokenizer(self)

    def _check(self, labels: Sequence[int]) -> None:
        for label in labels:
            if not 0 <= label < self.size:
                raise TokenizerError(f"label {label} is out of range: the tokenizer has labels 0 to {self.size - 1}")


class Detokenizer:
    """Decodes a growing sequence of labels: the joined results of `push` and `finish` are `decode` of all labels.

    The text of a piece depends on the labels before it in two ways only: spaces at the start of the text are dropped,
    and the bytes of one character are decoded together. So labels are decoded together with all earlier ones until
    there is text, and after that with one visible piece in their place. Bytes wait until their character is complete.
    Where spaces before punctuation are removed, a space at the end waits for the next label.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._before: list[int] = []  # labels that the next ones are decoded with
        self._before_text = ""  # empty until the text has begun
        self._waiting: list[int] = []  # bytes of an incomplete character
        self._space = ""  # a space that punctuation may still remove

    def push(self, labels: Sequence[int]) -> str:
        """Decodes further labels; returns the new text, which later labels do not change."""
        return self._join(self._push([label for label in labels if not self._tokenizer.is_silent(label)]))

    def preview(self, labels: Sequence[int]) -> str:
        """Returns the text that these labels would add if they were the last ones; nothing changes."""
        copied = copy(self)
        copied._before = list(self._before)
        return copied.push(labels) + copied.finish()

    def settle(self) -> str:
        """Returns the bytes of an incomplete character, decoded as replacement characters."""
        labels, self._waiting = self._waiting, []
        return self._join(self._show(labels))

    def finish(self) -> str:
        """Ends the text: returns everything that waits."""
        text = self.settle() + self._space
        self._space = ""
        return text

    def _push(self, labels: list[int]) -> str:
        tokenizer = self._tokenizer
        if self._before_text and not self._waiting:
            texts = [text for label in labels if (text := tokenizer.continuation(label)) is not None]
            if len(texts) == len(labels):
                return "".join(texts)
        labels = [*self._waiting, *labels]
        run = len(labels)  # where the bytes at the end begin
        while run and tokenizer.is_byte(labels[run - 1]):
            run -= 1
        settled = run + settled_bytes(bytes(tokenizer.byte(label) for label in labels[run:]))
        self._waiting = labels[settled:]
        return self._show(labels[:settled])

    def _show(self, labels: list[int]) -> str:
        text = self._tokenizer.unjoined(self._before + labels)[len(self._before_text) :]
        if not self._before_text:
            self._before += labels
        if text and not self._before_text:
            self._before = [self._tokenizer.anchor]
            self._before_text = self._tokenizer.unjoined(self._before)
        return text

    def _join(self, text: str) -> str:
        if not self._tokenizer.settings.join_punctuation:
            return text
        joined = SPACE_BEFORE_PUNCTUATION.sub(r"\1", self._space + text)
        self._space = " " if joined.endswith(" ") else ""
        return joined.removesuffix(" ")


def settled_bytes(data: bytes) -> int:
    """Returns the number of leading bytes whose text no later byte can change; the rest begins a UTF-8 character."""
    start = 0
    while True:
        try:
            data[start:].decode()
            return len(data)
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return start + error.start
            start += error.start + 1  # past an invalid byte
