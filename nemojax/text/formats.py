"""The forms in which results are written: subtitles, and time-marked words and segments.

    txt   the text
    json  all that a transcript has, see `Transcript.to_dict`
    srt   SubRip: cues, see `subtitles`
    vtt   WebVTT: the same cues, with the times of their words
    ctm   a line for each word: recording, channel, start, duration, word, confidence
    stm   a line for each utterance: recording, channel, speaker, start, end, labels, text
    tsv   a row for each word: start and end in milliseconds, text, confidence

Seconds of ctm and stm count from the beginning of the file, those of the other forms from that of the part of it that
was transcribed. Times are emission times, see `Word`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from nemojax.text.subtitles import Cue, cues
from nemojax.text.transcript import Transcript, Word

TXT, JSON = "txt", "json"
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # what WebVTT reads as marks
STM_LABELS = "<o,f0,unknown>"


class Segment(NamedTuple):
    """A part of a recording that is a line of an stm."""

    begin_s: float
    end_s: float
    text: str


class Timed(NamedTuple):
    """What the forms need of a result."""

    name: str  # of the recording
    text: str
    words: Sequence[Word]
    segments: Sequence[Segment]  # its utterances; the whole recording where their ends were not decided
    duration_s: float
    offset_s: float = 0.0  # where the part begins in its file
    channel: int = 1

    @classmethod
    def of(cls, name: str, transcript: Transcript, offset_s: float = 0.0, channel: int = 1) -> "Timed":
        """Returns what the forms need of a transcript."""
        return cls.of_fields({**transcript.to_dict(name), "offset": offset_s}, channel)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any], channel: int = 1) -> "Timed":
        """Returns what the forms need of the JSON form of a transcript, or of a line of a job's results."""
        text = fields.get("pred_text", fields["text"])
        words = [Word(word["word"], word["start"], word["end"], word["confidence"]) for word in fields["words"]]
        segments = [Segment(one["begin"], one["end"], one["text"]) for one in fields.get("utterances", ())]
        if not segments and text.strip():
            segments = [Segment(0.0, fields["duration"], text)]
        offset_s = fields.get("offset") or 0.0
        return cls(fields["audio"], text, words, segments, fields["duration"], offset_s, channel)


def srt(result: Timed) -> str:
    """Returns the cues as SubRip, numbered from 1."""
    blocks = []
    for number, cue in enumerate(cues(result.words, result.duration_s), 1):
        times = f"{_clock(cue.begin_ms, ',')} --> {_clock(cue.end_ms, ',')}"
        blocks.append("\n".join([str(number), times, *map(_printable, cue.lines)]) + "\n")
    return "\n".join(blocks)


def vtt(result: Timed) -> str:
    """Returns the cues as WebVTT; times within a cue are when its words begin."""
    blocks = ["WEBVTT\n"]
    for cue in cues(result.words, result.duration_s):
        times = f"{_clock(cue.begin_ms, '.')} --> {_clock(cue.end_ms, '.')}"
        blocks.append("\n".join([times, *_with_word_times(cue)]) + "\n")
    return "\n".join(blocks)


def _with_word_times(cue: Cue) -> list[str]:
    lines, index, last_ms = [], 0, cue.begin_ms
    for line in cue.lines:
        shown = []
        for word in line.split(" "):
            at_ms = round(1000 * cue.words[index].start_s)
            text = re.sub("[&<>]", lambda match: ESCAPES[match[0]], _printable(word))
            if last_ms < at_ms < cue.end_ms:  # they must lie within the cue, and increase
                text, last_ms = f"<{_clock(at_ms, '.')}>{text}", at_ms
            shown.append(text)
            index += 1
        lines.append(" ".join(shown))
    return lines


def ctm(result: Timed) -> str:
    """Returns a line for each word, in the form of NIST's scoring tools."""
    place = f"{file_id(result.name)} {result.channel}"
    return "".join(
        f"{place} {result.offset_s + word.start_s:.3f} {max(word.end_s - word.start_s, 0):.3f} "
        f"{_joined(word.text)} {word.confidence:.4f}\n"
        for word in result.words
    )


def stm(result: Timed) -> str:
    """Returns a line for each segment, in the form of NIST's scoring tools; the speaker is the recording."""
    name = file_id(result.name)
    return "".join(
        f"{name} {result.channel} {name} {result.offset_s + one.begin_s:.3f} {result.offset_s + one.end_s:.3f} "
        f"{STM_LABELS} {' '.join(one.text.split())}\n"
        for one in result.segments
    )


def tsv(result: Timed) -> str:
    """Returns a table of words, with tabs between its columns."""
    rows = [
        f"{round(1000 * word.start_s)}\t{round(1000 * word.end_s)}\t{_joined(word.text)}\t{word.confidence:.4f}\n"
        for word in result.words
    ]
    return "".join(["start\tend\ttext\tconfidence\n", *rows])


# forms of one recording each, and those whose lines name their recording
DOCUMENTS: dict[str, Callable[[Timed], str]] = {"srt": srt, "vtt": vtt, "tsv": tsv}
LINES: dict[str, Callable[[Timed], str]] = {"ctm": ctm, "stm": stm}
FORMATS = (TXT, JSON, *DOCUMENTS, *LINES)
CONFIDENT = (JSON, "tsv", "ctm")  # those with confidences
SEGMENTED = (TXT, JSON, "stm")  # those with utterances


def file_id(name: str) -> str:
    """Returns the name of a recording in a ctm or an stm: that of its file without the suffix, in one word."""
    return _joined(PurePath(name).stem) or "-"


def _joined(text: str) -> str:
    return "_".join(text.split())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"
