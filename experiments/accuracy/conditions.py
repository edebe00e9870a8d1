"""Conditions that a model's accuracy may depend on, and studies, each of which changes one of them.

A condition is written as `lookahead=6,left=35,dtype=bfloat16,cache=int8,snr=10,telephone,warm,group=4,together`, or
`lookahead=13,beam=4,lm=FILE,lm_weight=0.3,boost=2`. What is not named is as the model was trained, in float32, with the
recording as it is, each utterance alone and from an empty cache, by greedy search without a language model and phrases.
A study is a list of conditions that differ in one thing; the others are compared with the first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemojax.checks import check_count, check_weight
from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.text.phrases import LEAST_BOOST, MOST_BOOST

if TYPE_CHECKING:  # jax is imported only where a model runs
    from experiments.accuracy.key_words import KeyWords
    from nemojax.recognition.recognizer import Recognizer

DTYPES = ("float32", "bfloat16", "int8")
CACHES = ("auto", "int8")
PAUSE_S = 0.5
PAUSES_S = (0.5, 2.0, 5.0, 10.0)
WIDTHS = (None, 1, 2, 4, 8)
LM_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
BOOSTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)


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
      beam: width of a beam search; None is greedy search.
      lm: file of the language model; None is that of the study, if it has one.
      lm_weight: weight of the language model; 0 is to have none.
      boost: factor of the boosts of the study's key words, which are 1 where their file has no others; 0 expects none.
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
    beam: int | None = None
    lm: str | None = None
    lm_weight: float = 0.0
    boost: float = 0.0

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
        if self.beam is not None:
            check_count("beam", self.beam)
            if self.warm:
                raise ConfigError("warm and beam exclude each other: words before the recording may become final in it")
        check_weight("lm_weight", self.lm_weight)
        if self.lm is not None and not self.lm_weight:
            raise ConfigError(f"lm={self.lm} needs its lm_weight, such as 0.3")
        if self.boost and not LEAST_BOOST <= self.boost <= MOST_BOOST:
            raise ConfigError(f"boost must be 0, or from {LEAST_BOOST:g} to {MOST_BOOST:g}, not {self.boost:g}")

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
    kinds |= {"beam": int, "lm": str, "lm_weight": float, "boost": float}
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


def with_search(
    recognizer: "Recognizer", condition: Condition, lm: Path | None, key_words: "KeyWords | None"
) -> "Recognizer":
    """Returns a recognizer with the search of a condition; `lm` is the language model of one that names none.

    Raises:
      ConfigError, LanguageModelError: the search, the language model or a key word does not fit the model.
    """
    from nemojax.decoding.beam import Beam

    if condition.beam is not None:
        recognizer = recognizer.with_search(Beam(condition.beam))
    if condition.lm_weight and (file := condition.lm or lm) is not None:
        recognizer = recognizer.with_language_model(file, condition.lm_weight)
    if condition.boost and key_words is not None:
        recognizer = recognizer.with_phrases(key_words.boosted(condition.boost))
    return recognizer


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
    "beam": lambda config: [Condition(_best(config), beam=width) for width in WIDTHS],
    "lm-weight": lambda config: [Condition(_best(config), lm_weight=weight) for weight in LM_WEIGHTS],
    "boost": lambda config: [Condition(_best(config), boost=boost) for boost in BOOSTS],
}
