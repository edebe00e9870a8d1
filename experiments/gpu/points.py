"""What is measured: points of a live step, and the sizes of the other stages."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from nemojax.config import ConfigError

VARIANTS = ("plain", "fused", "narrow")
_POINT = re.compile(r"(\d+)@(\d+)((?:/[\w=]+)*)")


class Point(NamedTuple):
    """A step of some streams at one look-ahead.

    `variant` is the form of the model (see `variants`), `part` is the whole step or its encoder alone. `buffers` is
    whether XLA records kernels in command buffers, as nemojax asks it to. `active` counts the streams with a chunk; 0
    stands for all of them.
    """

    streams: int
    lookahead: int
    variant: str = "plain"
    part: str = "step"
    buffers: bool = True
    active: int = 0

    def __str__(self) -> str:
        words = [self.variant, *(["encoder"] if self.part == "encoder" else [])]
        words += [] if self.buffers else ["launches"]
        words += [f"active={self.active}"] if self.active else []
        return f"{self.streams}@{self.lookahead}/" + "/".join(words)


def parse_point(text: str) -> Point:
    """Reads STREAMS@LOOKAHEAD, with /plain, /fused, /narrow, /encoder, /launches and /active=N after it.

    Raises:
      ConfigError: the text is not of that form.
    """
    found = _POINT.fullmatch(text)
    if found is None or int(found[1]) < 1:
        raise ConfigError(f"{text!r} is no point; write STREAMS@LOOKAHEAD, such as 1024@0 or 1024@0/fused/launches")
    point = Point(int(found[1]), int(found[2]))
    for word in found[3].split("/")[1:]:
        if word in VARIANTS:
            point = point._replace(variant=word)
        elif word == "encoder":
            point = point._replace(part=word)
        elif word == "launches":
            point = point._replace(buffers=False)
        elif word.startswith("active=") and word[7:].isdigit() and 1 <= int(word[7:]) <= point.streams:
            point = point._replace(active=int(word[7:]))
        else:
            raise ConfigError(f"{text!r}: {word!r} is none of {', '.join(VARIANTS)}, encoder, launches, active=N")
    return point


def both(*points: str) -> tuple[str, ...]:
    """Each point in the plain and in the fused variant."""
    return tuple(f"{point}/{variant}" for point in points for variant in VARIANTS[:2])


@dataclass(frozen=True)
class Sizes:
    """Sizes of the stages; those of live steps are written STREAMS@LOOKAHEAD/words."""

    calibration: tuple[str, ...] = ("64@0", "64@13", "1024@6")
    """The blank bias of each look-ahead is calibrated at these; other look-aheads use the first."""
    points: tuple[str, ...] = (
        *both("1024@0", "1@0", "2400@0", "1024@13", "64@0", "64@13", "1024@6"),
        *("1024@0/encoder", "16@0/fused/active=1"),
    )
    one_stream_steps: int = 120
    engine: tuple[str, ...] = ("512@0/fused", "1024@13/fused")
    engine_s: float = 6.0
    """Of speech in each stream."""
    offline: tuple[int, ...] = (128,)
    """Recordings in a batch."""
    offline_s: float = 30.0
    training_rows: int = 32
    training_s: float = 20.0
    training_labels: int = 75
    peer_streams: tuple[int, ...] = (1, 1024)
    peer_lookaheads: tuple[int, ...] = (0, 13)
    peer_offline: int = 64
    tables: tuple[str, ...] = ("1024@0/plain", "1024@0/fused", "1@0/plain", "1024@13/fused")
    product_width: int = 8192
    copy_bytes: int = 4 * 2**30

    def __post_init__(self):
        for text in (*self.calibration, *self.points, *self.engine, *self.tables):
            parse_point(text)
        if min(self.offline_s, self.training_s, self.engine_s) <= 0:
            raise ConfigError("durations in seconds must be greater than 0")


DRY = Sizes(
    calibration=("4@0", "4@1"),
    points=("2@0/plain", "2@0/fused", "2@1/plain", "1@0/plain/launches", "2@0/encoder", "4@0/plain/active=1"),
    one_stream_steps=5,
    engine=("2@1",),
    engine_s=1.0,
    offline=(2,),
    offline_s=6.0,
    training_rows=2,
    training_s=2.0,
    training_labels=5,
    peer_streams=(1, 2),
    peer_lookaheads=(0,),
    peer_offline=2,
    tables=("2@0/plain",),
    product_width=256,
    copy_bytes=2**20,
)
