"""The result of a line of a manifest as the fields of a JSON object: the request, and the transcript or the error.

    line        number of the line in the manifest, from 1
    audio       name of the recording
    offset      where its part begins, in seconds; times of words count from there
    ...         the manifest's own keys
    text        the manifest's text; the transcript, where the manifest has no text
    pred_text   the transcript
    reference   the manifest's text, null without one
    tokens, frames, words, duration, lookahead, mode, notes    see `Transcript.to_dict`

A failure has `error` instead of the last three lines. A key of the manifest that has the name of another field here,
and another value, is in the object `request`.
"""

from typing import Any

from nemojax.audio.manifest import Request
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.text.transcript import Transcript

LINE, TEXT, PREDICTED, REFERENCE, ERROR, REQUEST = "line", "text", "pred_text", "reference", "error", "request"


def recording_name(request: Request, manifest: str) -> str:
    """Returns the name of a line's recording; that of the line, where it names none."""
    recording = request.recording
    return recording.name if isinstance(recording, Recording) else f"{manifest}: line {request.number}"


def result_fields(request: Request, result: Transcript | AudioError, manifest: str) -> dict[str, Any]:
    """Returns the fields of a line's result; `manifest` is the name of the manifest."""
    name, reference = recording_name(request, manifest), None
    where: dict[str, Any] = {LINE: request.number, "audio": name}
    if isinstance(request.recording, Recording):
        reference = request.recording.text
        where["offset"] = request.recording.offset_s
    if isinstance(result, AudioError):
        found: dict[str, Any] = {ERROR: str(result)}
    else:
        found = result.to_dict(name)
        del found["audio"]
        text = found.pop(TEXT)
        found = {TEXT: text if reference is None else reference, PREDICTED: text, REFERENCE: reference, **found}
    used = where | found
    own = {key: value for key, value in request.keys.items() if key not in used and key not in (ERROR, REQUEST)}
    hidden = {
        key: value
        for key, value in request.keys.items()
        if key not in own and value is not None and value != used.get(key)
    }
    return {**where, **own, **found, **({REQUEST: hidden} if hidden else {})}
