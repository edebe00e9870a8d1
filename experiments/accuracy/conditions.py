"""Conditions that a model's accuracy may depend on, and studies, each of which changes one of them.

A condition is written as `lookahead=6,left=35,dtype=bfloat16,cache=int8,snr=10,telephone,warm,group=4,together`.
What is not named is as the model was trained, in float32, with the recording as it is, each utterance alone and from an
empty cache. A study is a list of conditions that differ in one thing; the others are compared with the first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

DTYPES = ("float32", "bfloat16", "int8")
CACHES = ("auto", "int8")
PAUSE_S = 0.5
PAUSES_S = (0.5, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Condition:
    """How recordings are transcribed.

    Attributes:
      lookahead: in encoder frames.
      left: left context in encoder frames; None for the model's own.
      dtype: of the weights.
      cache: type of cached keys and values, as for `nemojax.load`.
      snr: signal-to-noise ratio of added white noise, in dB; None adds none.
      telephone: the recording comes through a telephone line: 300 to 3400 Hz, and the 8 bits of the mu-law.
      level: gain in dB; samples beyond full scale are clipped.
      warm: the cache holds another recording and a pause; otherwise it is empty.
      group: number of neighboring recordings of the manifest that are scored as one.
      together: transcribe the recordings of a group as one, with pauses; otherwise each alone.
      pause: seconds of digital silence between recordings that are transcribed together.
    """

    lookahead: int
    left: int | None = None
    dtype: str = "float32"
    cache: str = "auto"
    snr: float | None = None
    telephone: bool = False
    level: float = 0.0
    warm: bool = False
    group: int = 1
    together: bool = False
    pause: float = PAUSE_S

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.cache not in CACHES:
            raise ConfigError(f"cache must be one of {', '.join(CACHES)}, not {self.cache!r}")
        if self.group < 1:
            raise ConfigError(f"group must be at least 1, not {self.group}")
        if self.warm and self.together:
            raise ConfigError("warm and together exclude each other: a long recording warms its own cache")
        if self.pause < 0:
            raise ConfigError(f"pause must be at least 0, not {self.pause}")
        if self.pause != PAUSE_S and not self.together:
            raise ConfigError("pause is that between recordings transcribed together; give together too")

    def __str__(self) -> str:
        parts = [f"lookahead={self.lookahead}"]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(field.name if value is True else f"{field.name}={value}")
        return ",".join(parts)


def parse(text: str) -> Condition:
    """Reads a condition as `str` writes it. Raises ConfigError, which names the part that is wrong."""
    kinds: dict[str, Callable[[str], Any]] = {"lookahead": int, "left": int, "dtype": str, "group": int}
    kinds |= {"cache": str, "snr": float, "level": float, "pause": float}
    flags = ("telephone", "warm", "together")
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name in flags and not equals:
            values[name] = True
            continue
        if name not in kinds or not equals:
            known = ", ".join([*(f"{kind}=..." for kind in kinds), *flags])
            raise ConfigError(f"the condition {text!r} has {part.strip()!r}, which is none of {known}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise ConfigError(f"the condition {text!r}: {name} can't be {value!r}") from None
    if "lookahead" not in values:
        raise ConfigError(f"the condition {text!r} names no lookahead")
    return Condition(**values)


def fitting(config: ModelConfig, lookahead: int, left: int | None = None) -> ModelConfig:
    """Returns the model's settings with another left context. Raises ConfigError where the look-ahead does not fit."""
    if left is not None and left != config.encoder.left_context_frames:
        encoder = dataclasses.replace(config.encoder, left_context_frames=left, lookaheads=(lookahead,))
        config = dataclasses.replace(config, encoder=encoder)
    config.chunk_frames(lookahead)
    return config


def with_left_context(recognizer: "Recognizer", lookahead: int, left: int | None) -> "Recognizer":
    """Returns a recognizer of the same weights with another left context."""
    config = fitting(recognizer.config, lookahead, left)
    return recognizer if config == recognizer.config else recognizer.with_config(config)


# Studies.


def _common(config: ModelConfig, lefts: Sequence[int]) -> int:
    """Returns the largest trained look-ahead that fits all left contexts."""
    fits = [r for r in config.encoder.lookaheads if all(left % (r + 1) == 0 for left in lefts)]
    return max(fits)


def lookaheads(config: ModelConfig) -> list[Condition]:
    return [Condition(r) for r in config.encoder.lookaheads]


def left_contexts(config: ModelConfig) -> list[Condition]:
    own = config.encoder.left_context_frames
    lefts = [own, own // 2, own // 5]
    lookahead = _common(config, lefts)
    return [Condition(lookahead, left=None if left == own else left) for left in lefts]


def chunks(config: ModelConfig) -> list[Condition]:
    """Returns a condition for each chunk size: those of training, then the others that fit."""
    left, trained = config.encoder.left_context_frames, config.encoder.lookaheads
    others = [chunk - 1 for chunk in range(1, left + 1) if left % chunk == 0 and chunk - 1 not in trained]
    return [Condition(r) for r in [max(trained), *sorted({*trained, *others} - {max(trained)}, reverse=True)]]


def _best(config: ModelConfig) -> int:
    return config.encoder.lookaheads[0]


STUDIES: dict[str, Callable[[ModelConfig], list[Condition]]] = {
    "lookahead": lookaheads,
    "left-context": left_contexts,
    "chunk": chunks,
    "dtype": lambda config: [Condition(_best(config), dtype=dtype) for dtype in DTYPES],
    "cache": lambda config: [Condition(_best(config), cache=cache) for cache in CACHES],
    "noise": lambda config: [Condition(_best(config), snr=snr) for snr in (None, 20.0, 10.0, 5.0, 0.0)],
    "cold-start": lambda config: [Condition(_best(config), warm=warm) for warm in (False, True)],
    "telephone": lambda config: [Condition(_best(config), telephone=flag) for flag in (False, True)],
    "level": lambda config: [Condition(_best(config), level=level) for level in (0.0, -30.0, -15.0, 10.0)],
    "pause": lambda config: [Condition(_best(config), group=2, together=True, pause=pause) for pause in PAUSES_S],
    "long-form": lambda config: [Condition(_best(config), group=4, together=flag) for flag in (False, True)],
}
