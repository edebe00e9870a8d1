"""Every error that a user can meet. All share `NemojaxError`, and none needs jax to be imported."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemojax.text.transcript import Transcript

MAX_SHOWN = 1000  # characters of a line


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    """Returns a name or a value for one line: control characters are escaped, and a long one loses its middle."""
    text = str(value)
    if len(text) > limit:
        text = f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class NemojaxError(Exception):
    """Base class: the message is a sentence that says what was wrong, where, and what to do."""


class ConfigError(NemojaxError, ValueError):
    """Reports a setting that is missing, unknown, or not supported; the message names it."""


class CheckpointError(NemojaxError, ValueError):
    """Reports a checkpoint that can't be written, is missing or incomplete, or contradicts its settings."""


class ProcessError(NemojaxError, RuntimeError):
    """Reports that a process can't compute because it was forked from one that had used jax."""


class TokenizerError(NemojaxError, ValueError):
    """Reports bytes that are not a SentencePiece model, or a label that the model does not have."""


class AudioError(NemojaxError, ValueError):
    """Reports audio that can't be read. The message begins with the recording's name."""


class TranscriptionError(AudioError):
    """Reports the recordings of a list that could not be read.

    `errors` has an AudioError for the index of each; `transcripts` holds the results of the others, and None in the
    places of those that failed.
    """

    def __init__(self, errors: dict[int, AudioError], transcripts: "list[Transcript | None]"):
        self.errors, self.transcripts = errors, transcripts
        lines = [f"{len(errors)} of {len(transcripts)} recordings could not be transcribed:"]
        super().__init__("\n  ".join(lines + [str(error) for error in errors.values()]))


class DataError(NemojaxError, RuntimeError):
    """Reports training data most of which can't be read; names examples."""


class StreamError(NemojaxError, RuntimeError):
    """Reports a live stream whose state was lost in a step that failed; says what was transcribed."""


class EngineError(NemojaxError):
    """Reports a live stream that can't be served; says why."""


class EngineFull(EngineError):
    """Reports that all slots of the engine are taken."""


class Backlog(EngineError):
    """Reports that the stream's queue is full: samples arrive faster than they are processed."""


class LanguageModelError(NemojaxError, ValueError):
    """Reports a language model that can't be read, or that is not one over the model's labels; names the line."""
