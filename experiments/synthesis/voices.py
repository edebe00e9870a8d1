"""The voices: program, name, share of the clips, and ranges of speed and pitch."""

import random
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

Program = Literal["espeak-ng", "flite", "festival", "piper"]
PROGRAMS: tuple[Program, ...] = ("espeak-ng", "flite", "festival")  # by default; piper comes from the package index


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesizer.

    Attributes:
      program: the synthesizer.
      name: of the voice in the synthesizer.
      share: of the clips, relative to the other voices.
      left_out: whether it is held out from training, for evaluation alone.
      speeds: range of the rate of speech, relative to the voice's own.
      pitches: range of the fundamental frequency, relative to the voice's own.
      sizes: range of the factor by which the spectrum is stretched, as of a smaller or larger speaker; it
        moves pitch and formants together.
      pitch_hz: the voice's own mean fundamental frequency, where its program takes it as an argument; otherwise 0.
    """

    program: Program
    name: str
    share: float
    left_out: bool = False
    speeds: tuple[float, float] = (0.85, 1.25)
    pitches: tuple[float, float] = (1.0, 1.0)
    sizes: tuple[float, float] = (0.9, 1.12)
    pitch_hz: float = 0.0

    @property
    def speaker(self) -> str:
        return f"{self.program}/{self.name}"


class Delivery(NamedTuple):
    """How a sentence is spoken: factors of the voice's own speed, pitch and spectrum."""

    speed: float
    pitch: float
    size: float


def draw_delivery(voice: Voice, rng: random.Random) -> Delivery:
    return Delivery(*(round(rng.uniform(*span), 3) for span in (voice.speeds, voice.pitches, voice.sizes)))


# "en" is British English; with its other name, "en-gb", espeak-ng ignores the variant
ACCENTS = ("en-us", "en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt3", "klatt4"),
    *("Alex", "Alicia", "Annie", "Gene", "Hugo", "Lee", "Mario", "Michael", "adam", "anika", "belinda", "benjamin"),
    *("caleb", "david", "ed", "edward", "linda", "max", "pablo", "paul", "quincy", "rob", "steph", "victor"),
)
LEFT_OUT_VARIANT = "Andrea"


def _espeak() -> list[Voice]:
    """Returns every variant with two accents each, together half of the clips."""
    pairs = [(ACCENTS[(index + turn) % len(ACCENTS)], v) for index, v in enumerate(VARIANTS) for turn in (0, 3)]
    pairs = list(dict.fromkeys(pairs))
    voice = partial(Voice, "espeak-ng", speeds=(0.8, 1.2), pitches=(0.8, 1.25), sizes=(1.0, 1.0))
    voices = [voice(f"{accent}+{variant}", 0.5 / len(pairs)) for accent, variant in pairs]
    return [*voices, voice(f"en-us+{LEFT_OUT_VARIANT}", 0.5, left_out=True)]


VOICES: tuple[Voice, ...] = (
    *_espeak(),
    Voice("flite", "slt", 0.14, pitches=(0.88, 1.15), pitch_hz=170),
    Voice("flite", "awb", 0.14, pitches=(0.88, 1.15), pitch_hz=128),
    Voice("flite", "kal16", 0.06, pitches=(0.85, 1.3), pitch_hz=105),
    Voice("flite", "rms", 0.5, left_out=True),
    Voice("festival", "cmu_us_slt_arctic_hts", 0.1),
    Voice("festival", "kal_diphone", 0.06, pitches=(0.85, 1.3), pitch_hz=105),
    Voice("piper", "joe", 1.0, sizes=(1.0, 1.0)),  # a natural voice; beside the others it would have half of the clips
)
