"""The text of a stream as one line for each utterance, printed as it is recognized."""

from collections.abc import Callable, Sequence

from nemojax.text.transcript import Transcript, Utterance


class UtteranceLines:
    """Turns what a stream adds into what is printed.

    A line is ended when the next one begins, for punctuation may still come. With `normalize`, which changes the text
    of an utterance that has ended, a line is printed at its end.
    """

    def __init__(self, prefix: str = "", normalize: Callable[[Utterance], Utterance] | None = None):
        self._prefix, self._normalize = prefix, normalize
        self._open = ""  # text that is in no utterance yet
        self._shown: str | None = None  # of it; None before its line has begun
        self._ended: list[str] = []  # the texts of utterances

    def add(self, text: str, final: Sequence[Utterance] = (), amended: Sequence[Utterance] = ()) -> str:
        """Takes new text, and the utterances that have ended or got their punctuation; returns what to print."""
        printed = ""
        self._open += text
        in_order = [(one.index, 0, one) for one in final] + [(one.index, 1, one) for one in amended]
        for index, is_amended, utterance in sorted(in_order, key=lambda each: each[:2]):
            if is_amended:
                more = utterance.text.removeprefix(self._ended[index])
                printed, self._ended[index] = printed + more, utterance.text
                self._take(more)
            else:
                written = utterance if self._normalize is None else self._normalize(utterance)
                printed += self._line(written.text)
                self._ended.append(utterance.text)
                self._take(utterance.text)
                self._shown = None
        rest = self._open.strip(" ")
        return printed + (self._line(rest) if rest and self._normalize is None else "")

    def finish(self, text: str, transcript: Transcript) -> str:
        """Takes the rest of the text of a stream that has ended; returns what to print."""
        count, utterances = len(self._ended), transcript.utterances
        amended = [one for one, before in zip(utterances, self._ended, strict=False) if one.text != before]
        return self.add(text, utterances[count:], amended) + "\n"

    def _line(self, text: str) -> str:
        """Shows what a line has gained; begins it if it is new."""
        if self._shown is None:
            begin, self._shown = ("\n" if self._ended else "") + self._prefix, ""
        else:
            begin = ""
        more = text.removeprefix(self._shown)
        self._shown = text
        return begin + more

    def _take(self, text: str) -> None:
        self._open = self._open.lstrip(" ").removeprefix(text.lstrip(" "))
