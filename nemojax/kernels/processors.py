"""Which instructions the C++ kernels use on a processor: the one place that chooses.

On the user's own machine they are compiled for its processor. A wheel carries them compiled for each of these levels,
and the best one that the processor has is loaded. Tiles (AMX) are in all of them; `tiles` says whether they are used.
"""

import os
from collections.abc import Callable, Set
from typing import NamedTuple

from nemojax.errors import ConfigError


class Level(NamedTuple):
    """A set of instructions that a compiled library may use."""

    name: str  # of the library in a wheel
    flags: frozenset[str]  # what a processor must have, as /proc/cpuinfo names it
    options: tuple[str, ...]  # of the compiler


_AVX2 = frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
_AVX512 = _AVX2 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_AVX512_OPTIONS = ("-march=x86-64-v4", "-mprefer-vector-width=512")

# by architecture, the best first
LEVELS = {
    "x86_64": (
        Level("avx512-vnni", _AVX512 | {"avx512_vnni"}, (*_AVX512_OPTIONS, "-mavx512vnni")),
        Level("avx512", _AVX512, _AVX512_OPTIONS),
        Level("avx2", _AVX2, ("-march=x86-64-v3",)),
    ),
    "aarch64": (Level("neon", frozenset(), ("-march=armv8-a",)),),
}
THIS_PROCESSOR = ("-march=native",)

TILES_SWITCH = "NEMOJAX_TILES"  # 0: no tiles; emulated: in software, slowly, for tests
AMX, EMULATED = "amx", "emulated"


def level(machine: str, flags: Set[str]) -> Level | None:
    """Returns the best level of an architecture that a processor with these flags has; None if it has none."""
    return next((level for level in LEVELS.get(machine, ()) if level.flags <= flags), None)


def tiles(usable: Callable[[], bool]) -> str | None:
    """Returns which tiles compute products, AMX or EMULATED; None if none do.

    Args:
      usable: whether the processor has AMX and the kernel of the system lets this process use it.

    Raises:
      ConfigError: $NEMOJAX_TILES is neither unset nor one of its values.
    """
    requested = os.environ.get(TILES_SWITCH, "")
    if requested not in ("", "0", EMULATED):
        raise ConfigError(f"${TILES_SWITCH} must be 0 or {EMULATED}, not {requested!r}; unset, AMX is used where it is")
    if requested:
        return EMULATED if requested == EMULATED else None
    return AMX if usable() else None
