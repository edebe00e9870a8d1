"""One line of a manifest: NeMo's keys, or a Lhotse cut, to a recording."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from nemojax.audio import lhotse_cut
from nemojax.audio.channels import check_channel
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.source import Recording
from nemojax.audio.tar_index import Member
from nemojax.audio.tar_shards import TarShards
from nemojax.errors import shown

MAX_SECONDS = 1e9  # of an offset or a duration
MAX_LINE_BYTES = 2**23
MAX_DEPTH = 50  # of objects and arrays inside each other
MAX_TEXT_BYTES = 2**20  # of a file of text
LEFT_OUT = "_skipme"  # NeMo's key for lines that are not used


class _Fields(NamedTuple):
    """What a line says of its recording, not checked yet."""

    name: Any
    offset: Any
    duration: Any
    text: Any
    shard_id: Any = None
    channel: Any = None


def parse_entry(content: bytes) -> dict[str, Any]:
    """Returns the JSON object of a line. Raises UnnamedAudioError.

    Bytes that are not UTF-8 become lone surrogates, as in the names of files.
    """
    if len(content) > MAX_LINE_BYTES:
        raise UnnamedAudioError(f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        try:
            entry = json.loads(content)
        except UnicodeDecodeError:
            entry = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except RecursionError:
        raise UnnamedAudioError("it is not JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UnnamedAudioError(f"it is not JSON ({error})") from None
    except ValueError:
        raise UnnamedAudioError("it is not JSON that can be read: a number has thousands of digits") from None
    if not isinstance(entry, dict):
        raise UnnamedAudioError(f"it is {type(entry).__name__}, not a JSON object")
    if _depth_exceeds(entry, MAX_DEPTH):
        raise UnnamedAudioError("it is not JSON that can be read: it is nested too deeply")
    return entry


def is_left_out(content: bytes) -> bool:
    """Returns whether a line is marked as not to be used: `_skipme` in it, or in the `custom` part of a Lhotse cut."""
    if LEFT_OUT.encode() not in content:
        return False
    try:
        entry = parse_entry(content)
    except UnnamedAudioError:
        return False
    custom = entry.get("custom")
    return bool(entry.get(LEFT_OUT) or (isinstance(custom, dict) and custom.get(LEFT_OUT)))


def duration_s(content: bytes) -> float | None:
    """Returns the duration that a line gives; None if it gives none, or is not valid."""
    try:
        return _seconds("duration", parse_entry(content).get("duration"))
    except UnnamedAudioError:
        return None


def recording_of(entry: dict[str, Any], directory: Path, tars: TarShards) -> Recording:
    """Returns the recording that a line of a manifest in `directory` names. Raises UnnamedAudioError."""
    fields = _cut_fields(entry) if lhotse_cut.is_cut(entry) else _nemo_fields(entry, directory)
    name, text = fields.name, fields.text
    offset, duration = _seconds("offset", fields.offset), _seconds("duration", fields.duration)
    if duration == 0:
        raise UnnamedAudioError("its duration is 0")
    if text is not None and not isinstance(text, str):
        raise UnnamedAudioError(f"its text is {shown(repr(text), 200)}, not a string")
    if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
        raise UnnamedAudioError(f"its text has characters that are not Unicode: {shown(text, 200)}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise UnnamedAudioError(f"{shown(repr(name))} can't be the name of a file") from None
    part, channel = (offset or 0.0, duration), check_channel(fields.channel)
    path, found = _find(name, fields.shard_id, directory, tars)
    first_byte, size_bytes = found if found is not None else (0, None)
    return Recording(path, name, *part, first_byte, size_bytes, text=text, channel=channel)


def _find(name: str, shard_id: Any, directory: Path, tars: TarShards) -> tuple[Path, Member | None]:
    """Returns the file of a name in a manifest; where it is a tar file, with the member. Raises UnnamedAudioError.

    A shard comes before a file beside the manifest, which has the audio of another shard perhaps; a tar file with the
    manifest's name comes after it.
    """
    beside, elsewhere, missing = directory / name, Path(os.path.expanduser(name)), None
    try:
        if tars.has_shard(shard_id) or not os.path.exists(beside):
            found = tars.find(name, shard_id)
            if found is not None:
                return found
    except UnnamedAudioError as error:
        missing = error
    existing = next((path for path in (beside, elsewhere) if os.path.exists(path)), None)
    if existing is None and missing is not None:
        raise missing
    return existing or beside, None


def _nemo_fields(entry: dict[str, Any], directory: Path) -> _Fields:
    key = "audio_filename" if entry.get("audio_filepath") is None and "audio_filename" in entry else "audio_filepath"
    name, text = entry.get(key), entry.get("text")
    if not isinstance(name, str) or not name:
        raise UnnamedAudioError(f"its {key} is {shown(repr(name), 200)}, not the name of a file")
    if text is None and entry.get("text_filepath") is not None:
        text = _read_text(entry["text_filepath"], directory)
    if text is None:
        text = entry.get("normalized_text")
    return _Fields(
        name, entry.get("offset"), entry.get("duration"), text, entry.get("shard_id"), entry.get("channel_selector")
    )


def _cut_fields(entry: dict[str, Any]) -> _Fields:
    cut = lhotse_cut.read_cut(entry)
    return _Fields(cut.source, cut.start, cut.duration, cut.text, channel=cut.channel)


def _read_text(name: Any, directory: Path) -> str:
    """Returns the text of a file beside the manifest or in the working directory, as one line."""
    if not isinstance(name, str) or not name:
        raise UnnamedAudioError(f"its text_filepath is {shown(repr(name), 200)}, not the name of a file")
    path = directory / name if os.path.exists(directory / name) else Path(os.path.expanduser(name))
    reason = "it is not UTF-8"
    if not os.path.isfile(path):
        reason = "it is not a file" if os.path.exists(path) else "there is no such file"
    else:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_TEXT_BYTES + 1)
            if len(content) <= MAX_TEXT_BYTES:
                return " ".join(content.decode("utf-8-sig").split())
            reason = f"it has more than {MAX_TEXT_BYTES} bytes"
        except OSError as error:
            reason = error.strerror or str(error)
        except UnicodeDecodeError:
            pass
    raise UnnamedAudioError(f"its text_filepath {shown(name)} can't be read ({reason})")


def _seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_SECONDS:
        raise UnnamedAudioError(f"its {key} is {shown(repr(value), 200)}, not a number of seconds")
    return float(value)


def _depth_exceeds(entry: dict[str, Any], limit: int) -> bool:
    level: list[Any] = [entry]
    for _ in range(limit):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True
