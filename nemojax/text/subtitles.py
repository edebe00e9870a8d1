"""Words to subtitles: cues of one or two lines, by the usual rules.

A cue ends, in this order of preference, with a sentence, with a clause, before a pause, or between any two words. The
cuts of a recording are chosen together, by dynamic programming: each cue has a cost, and the sum is least. Then each
cue is shown long enough to be read. Where speech is faster than that, it begins a little early, or the next one late;
cues never overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nemojax.text.transcript import Word

SENTENCE_ENDS, CLAUSE_ENDS, QUOTES = ".?!…。！？।؟", ",;:，、；：،؛–—", "\"'”’»)]}"  # noqa: RUF001
MAX_LEAD_MS = 500  # a cue begins at most this long before its first word is emitted, which is later than its sound

# Costs of a cue. A sentence end within a cue costs more than another cue, and less than a cue too short to be read.
CUE, FULLNESS = 1.0, 0.5
AFTER_CLAUSE, BEFORE_PAUSE, ANYWHERE = 1.5, 2.0, 6.0
SENTENCE_WITHIN, PAUSE_WITHIN = 2.5, 4.0
SHORT, SHORT_PER_S = 3.0, 10.0


@dataclass(frozen=True)
class CueRules:
    """The rules of cues; the defaults are those of broadcasters."""

    line_characters: int = 42
    lines: int = 2
    shortest_s: float = 0.83
    longest_s: float = 7.0
    characters_per_s: float = 20.0  # as fast as adults read
    pause_s: float = 0.8  # between words; a cue rather ends there

    def reading_ms(self, characters: int) -> int:
        """Returns how long a cue must be shown, at the least."""
        seconds = min(max(self.shortest_s, characters / self.characters_per_s), self.longest_s)
        return -int(-1000 * seconds // 1)


class Cue(NamedTuple):
    """A subtitle."""

    begin_ms: int
    end_ms: int
    lines: tuple[str, ...]
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The lines as one."""
        return " ".join(self.lines)


def cues(words: Sequence[Word], duration_s: float = float("inf"), rules: CueRules = CueRules()) -> list[Cue]:
    """Returns the cues of words in their order, for a recording of this duration."""
    fitting = [part for word in words for part in _parts(word, rules.line_characters)]
    groups = _groups(fitting, rules)
    return _timed(groups, duration_s, rules)


def wrapped(texts: Sequence[str], rules: CueRules = CueRules()) -> tuple[str, ...] | None:
    """Returns the lines of a cue, of words that are no longer than a line; None if they need more lines.

    Of two lines, the first ends with punctuation where it can, and both are about as long.
    """
    text, limit = " ".join(texts), rules.line_characters
    if len(text) <= limit:
        return (text,)
    if rules.lines == 2:
        splits = ((" ".join(texts[:index]), " ".join(texts[index:])) for index in range(1, len(texts)))
        fitting = [split for split in splits if max(map(len, split)) <= limit]
        return min(fitting, key=_imbalance, default=None)
    lines = [""]
    for word in texts:
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if len(longer) <= limit:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(lines) if len(lines) <= rules.lines else None


def _imbalance(split: tuple[str, str]) -> float:
    first, second = split
    return abs(len(first) - len(second)) - (10 if _ends_with(first, SENTENCE_ENDS + CLAUSE_ENDS) else 0)


def _ends_with(word: str, marks: str) -> bool:
    return word.rstrip(QUOTES).endswith(tuple(marks))


def _parts(word: Word, limit: int) -> list[Word]:
    """Returns a word, in parts if it is longer than a line: languages without spaces have words of whole sentences."""
    count = -(-len(word.text) // limit)
    if count <= 1:
        return [word]
    at = [len(word.text) * index // count for index in range(count + 1)]
    time = [word.start_s + (word.end_s - word.start_s) * index / len(word.text) for index in at]
    return [replace(word, text=word.text[at[i] : at[i + 1]], start_s=time[i], end_s=time[i + 1]) for i in range(count)]


def _groups(words: Sequence[Word], rules: CueRules) -> list[list[Word]]:
    """Returns the words of each cue."""
    count, reach = len(words), _reach(words, rules)
    cuts = [_cost_of_cut(words, index, rules) for index in range(count)]
    # of a word that another one follows in its cue
    within = [SENTENCE_WITHIN * (cut == 0) + PAUSE_WITHIN * _pauses(words, i, rules) for i, cut in enumerate(cuts)]
    best, first_of = [0.0] + [float("inf")] * count, [0] * (count + 1)
    for end in range(1, count + 1):
        inner, characters = 0.0, -1
        for first in range(end - 1, -1, -1):
            alone = first == end - 1
            if not alone and (end > reach[first] or words[end - 1].end_s - words[first].start_s > rules.longest_s):
                break
            inner += 0.0 if alone else within[first]
            characters += len(words[first].text) + 1
            fullness = FULLNESS * (characters / (rules.lines * rules.line_characters)) ** 2
            short = _shortage(words, first, end, characters, rules)
            cost = best[first] + CUE + fullness + inner + cuts[end - 1] + short
            if cost < best[end]:
                best[end], first_of[end] = cost, first
    groups, end = [], count
    while end:
        groups.append(list(words[first_of[end] : end]))
        end = first_of[end]
    return groups[::-1]


def _reach(words: Sequence[Word], rules: CueRules) -> list[int]:
    """Returns for each word the end of the longest cue that begins with it: lines hold as many words as they can."""
    count = len(words)
    line_end, end, characters = [0] * count, 0, -1
    for first in range(count):
        while end < count and characters + 1 + len(words[end].text) <= rules.line_characters:
            characters += 1 + len(words[end].text)
            end += 1
        line_end[first] = end
        characters -= len(words[first].text) + 1
    reach = list(range(count))
    for _ in range(rules.lines):
        reach = [line_end[end] if end < count else count for end in reach]
    return reach


def _pauses(words: Sequence[Word], index: int, rules: CueRules) -> bool:
    return index + 1 < len(words) and words[index + 1].start_s - words[index].end_s >= rules.pause_s


def _cost_of_cut(words: Sequence[Word], index: int, rules: CueRules) -> float:
    """Returns the cost of a cut after a word; 0 after a sentence, and at the end."""
    text = words[index].text
    if index + 1 == len(words) or (_ends_with(text, SENTENCE_ENDS) and not words[index + 1].text[:1].islower()):
        return 0.0
    if _ends_with(text, CLAUSE_ENDS):
        return AFTER_CLAUSE
    return BEFORE_PAUSE if _pauses(words, index, rules) else ANYWHERE


def _shortage(words: Sequence[Word], first: int, end: int, characters: int, rules: CueRules) -> float:
    """Returns the cost of a cue that the next one leaves too little time."""
    if end == len(words):
        return 0.0
    missing_s = rules.reading_ms(characters) / 1000 - (words[end].start_s - words[first].start_s)
    return SHORT + SHORT_PER_S * missing_s if missing_s > 0 else 0.0


def _timed(groups: Sequence[Sequence[Word]], duration_s: float, rules: CueRules) -> list[Cue]:
    found: list[Cue] = []
    free_ms = 0  # up to here, earlier cues are shown
    for index, group in enumerate(groups):
        lines = wrapped([word.text for word in group], rules) or ()
        needed_ms = rules.reading_ms(len(" ".join(lines)))
        starts_ms, ends_ms = round(1000 * group[0].start_s), round(1000 * group[-1].end_s)
        next_s = groups[index + 1][0].start_s if index + 1 < len(groups) else duration_s
        next_ms = round(1000 * next_s) if next_s != float("inf") else starts_ms + 10**9
        begin_ms = max(starts_ms, free_ms)
        if begin_ms + needed_ms > next_ms:
            begin_ms = max(free_ms, min(begin_ms, max(next_ms - needed_ms, starts_ms - MAX_LEAD_MS, 0)))
        end_ms = max(min(ends_ms, next_ms), begin_ms + needed_ms)
        end_ms = min(end_ms, begin_ms + int(1000 * rules.longest_s))
        found.append(Cue(begin_ms, end_ms, lines, tuple(group)))
        free_ms = end_ms
    return found
