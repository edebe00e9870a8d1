"""The one error of conversions, and how what is found in a file is quoted in it."""

import reprlib
from collections.abc import Sequence

from nemojax.errors import NemojaxError

SHOWN = 8  # problems named in one message; the rest are counted


class ConvertError(NemojaxError, ValueError):
    """A checkpoint that can't be converted; the message says what is wrong and where."""


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 80, 80, 40


def short(value: object) -> str:
    """A value from a file, for a message: cut to a line, however large or deeply nested it is."""
    return _short.repr(value)


def listed(problems: Sequence[str]) -> str:
    """Problems as one clause after another, the first of them in full."""
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def reason(error: BaseException) -> str:
    """What a library's error says, in one line of bearable length."""
    return " ".join(str(error).split())[:200] or type(error).__name__
