"""Lhotse cuts: each line is a part of a recording with its supervisions, as `CutSet.to_file` and `to_shar` write it."""

from typing import Any, NamedTuple

from nemojax.audio.headers import UnnamedAudioError
from nemojax.errors import shown


class Cut(NamedTuple):
    """The fields of a cut that matter here, as they stand in it."""

    source: str  # path of the audio file, or name of a member of the tar file beside the cuts
    start: Any  # seconds
    duration: Any  # seconds
    text: Any
    channel: int | list[int] | None  # in the file, from 0; None: all


def is_cut(entry: dict[str, Any]) -> bool:
    """Returns whether a line of a manifest is a cut: it has no audio file of its own, but a recording or tracks."""
    named = isinstance(entry.get("type"), str) and entry["type"].endswith("Cut")
    return "audio_filepath" not in entry and (named or isinstance(entry.get("recording"), dict))


def read_cut(entry: dict[str, Any]) -> Cut:
    """Reads a cut of one recording in a file. Raises UnnamedAudioError."""
    recording = entry.get("recording")
    if not isinstance(recording, dict):
        raise UnnamedAudioError(
            f"it is a {shown(str(entry.get('type', 'cut')))} without a recording of its own; only MonoCut and MultiCut "
            "can be read"
        )
    if recording.get("transforms"):
        raise UnnamedAudioError("its recording has transforms; save the transformed audio to files first")
    channel = entry.get("channel")
    if channel is not None and not _is_index(channel) and not _is_indexes(channel):
        raise UnnamedAudioError(f"its channel is {shown(repr(channel), 200)}, not a number or a list of numbers")
    source, file_channels = _source(recording, channel)
    if source is None and not isinstance(source := entry.get("id"), str):
        raise UnnamedAudioError(f"its id is {shown(repr(source))}, not the name of a member of a tar file")
    return Cut(
        source,
        entry.get("start"),
        entry.get("duration"),
        _text(entry.get("supervisions")),
        _places(channel, file_channels),
    )


def _places(channel: Any, file_channels: list[int]) -> int | list[int] | None:
    """Returns where the channels of a cut are in the file; None if it has no others. Raises UnnamedAudioError."""
    wanted = [channel] if _is_index(channel) else channel
    if wanted is None or set(wanted) == set(file_channels):
        return None
    if missing := [one for one in wanted if one not in file_channels]:
        raise UnnamedAudioError(f"its recording has no channel {missing[0]}")
    return file_channels.index(channel) if _is_index(channel) else [file_channels.index(one) for one in wanted]


def _text(supervisions: Any) -> str | None:
    """Returns the texts of supervisions in the order of their times, joined; None if there is none."""
    texts = []
    for supervision in supervisions if isinstance(supervisions, list) else []:
        if not isinstance(supervision, dict) or supervision.get("text") is None:
            continue
        text, start = supervision["text"], supervision.get("start")
        if not isinstance(text, str):
            raise UnnamedAudioError(f"a text of its supervisions is {shown(repr(text), 200)}, not a string")
        texts.append((start if isinstance(start, int | float) else 0, text))
    return " ".join(text for _, text in sorted(texts, key=lambda timed: timed[0])) if texts else None


def _source(recording: dict[str, Any], channel: Any) -> tuple[str | None, list[int]]:
    """Returns the file that has a channel, None for a member of a tar file, and the file's channels."""
    sources = recording.get("sources")
    if not isinstance(sources, list) or not sources or not all(isinstance(source, dict) for source in sources):
        raise UnnamedAudioError("its recording has no sources")
    for source in sources:
        channels = source.get("channels", [0])
        if not _is_indexes(channels):
            raise UnnamedAudioError("the channels of its source are not a list of numbers")
        if _is_index(channel) and channel not in channels:
            continue
        if len(sources) > 1 and not _is_index(channel):
            raise UnnamedAudioError("its channels are in several files; make a cut of each channel")
        if source.get("type") == "shar":
            return None, channels
        kind, name = source.get("type"), source.get("source")
        if kind != "file":
            raise UnnamedAudioError(
                f"the source of its recording is {shown(repr(kind), 200)}, not a file; save the audio to files"
            )
        if not isinstance(name, str) or not name:
            raise UnnamedAudioError(f"the source of its recording is {shown(repr(name), 200)}, not the name of a file")
        return name, channels
    raise UnnamedAudioError(f"no source of its recording has channel {shown(repr(channel), 200)}")


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1000


def _is_indexes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_index, value))
