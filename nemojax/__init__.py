"""nemojax: a cache-aware streaming speech recogniser in JAX.

Dimensions, one letter each, the same everywhere:

    B streams            N samples             F log-mel frames      M mel bins
    T encoder frames     C cached frames       D model width         H heads
    K head width         U labels              P prediction width    J joint width
    V vocabulary with blank                    L layers

Array annotations name them (`Float[Array, "B T D"]`); where a function holds the same numbers in several
layouts, names end in them (`score_BHTC`). Units are in names: `hop_samples`, `lookahead` is in encoder
frames, times end in `_s` or `_ms`.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# What users call, imported when first touched: a command that needs no jax should not wait for it.
_PUBLIC = {
    "load": "recognition.recognizer",
    "Recognizer": "recognition.recognizer",
    "Stream": "recognition.stream",
    "Transcript": "text.transcript",
    "Word": "text.transcript",
    "open_audio": "audio.source",
    "NemojaxError": "errors",
    "AudioError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "TokenizerError": "errors",
    "TranscriptionError": "errors",
    "ModelConfig": "config",
    "PRESETS": "config",
    "Transducer": "model.transducer",
    "StreamState": "streaming",
    "Segment": "streaming",
    "Emission": "decoding.state",
    "prepare": "streaming",
    "init_state": "streaming",
    "step": "streaming",
    "transcribe_scan": "streaming",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nemojax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nemojax.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from nemojax.audio.source import open_audio
    from nemojax.config import PRESETS, ModelConfig
    from nemojax.decoding.state import Emission
    from nemojax.errors import AudioError, CheckpointError, TranscriptionError
    from nemojax.model.transducer import Transducer
    from nemojax.recognition.recognizer import Recognizer, load
    from nemojax.recognition.stream import Stream
    from nemojax.streaming import Segment, StreamState, init_state, prepare, step, transcribe_scan
    from nemojax.text.transcript import Transcript, Word
