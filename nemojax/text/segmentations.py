"""Other ways than the tokenizer's own to cut a text into pieces: a model that is unsure of a word may emit one."""

from collections.abc import Iterator

from nemojax.text.tokenizer import Tokenizer

MOST = 4  # segmentations of a text, the tokenizer's own among them
MORE_PIECES = 1  # than the tokenizer's own has, at most


class Segmentations:
    """Cuts texts into pieces in several ways.

    Args:
      tokenizer: whose pieces with text are used; not its unknown piece, events and bytes.
    """

    def __init__(self, tokenizer: Tokenizer):
        with_text = (label for label in range(tokenizer.size) if tokenizer.has_text(label))
        self._labels = {tokenizer.piece(label): label for label in with_text}
        self._longest = max(map(len, self._labels), default=0)
        self._tokenizer = tokenizer

    def of(self, labels: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Returns the segmentations of what `labels` spell: `labels` first, then those of the fewest pieces.

        They have at most one piece more than `labels`. Of two with as many pieces, the one whose first piece is longer
        comes first.
        """
        text = "".join(map(self._tokenizer.piece, labels))
        fewest = self._fewest(text)
        found = [labels]
        for count in range(1, len(labels) + MORE_PIECES + 1):
            for other in self._cut(text, 0, count, fewest):
                if len(found) == MOST:
                    return found
                if other != labels:
                    found.append(other)
        return found

    def _fewest(self, text: str) -> list[int]:
        """Returns, for each place in a text, the least number of pieces from there to its end; too many for none."""
        never = len(text) + 1
        fewest = [never] * len(text) + [0]
        for begin in reversed(range(len(text))):
            ends = range(begin + 1, min(begin + self._longest, len(text)) + 1)
            fewest[begin] = min([fewest[end] + 1 for end in ends if text[begin:end] in self._labels], default=never)
        return fewest

    def _cut(self, text: str, begin: int, count: int, fewest: list[int]) -> Iterator[tuple[int, ...]]:
        """Yields the segmentations of a text from `begin` on that have exactly `count` pieces."""
        if begin == len(text):
            if count == 0:
                yield ()
            return
        for end in range(min(begin + self._longest, len(text)), begin, -1):
            label = self._labels.get(text[begin:end])
            if label is not None and fewest[end] < count:
                for rest in self._cut(text, end, count - 1, fewest):
                    yield (label, *rest)
