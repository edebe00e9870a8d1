"""The one error of conversions, and how messages quote what a file holds."""

import reprlib
from collections.abc import Sequence

from nemojax.errors import NemojaxError

MAX_LISTED = 8  # problems that one message names; further ones are counted
MAX_REASON_CHARACTERS = 200


class ConvertError(NemojaxError, ValueError):
    """Reports a checkpoint that can't be converted; the message says what is wrong and where."""


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 80, 80, 40


def short(value: object) -> str:
    """Returns a value from a file for a message: one line, however large or deeply nested the value is."""
    return _short.repr(value)


def listed(problems: Sequence[str]) -> str:
    """Joins problems into one clause after another; names the first eight and counts the rest."""
    more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return "; ".join(problems[:MAX_LISTED]) + more


def reason(error: BaseException) -> str:
    """Returns the message of a library's error as one line of limited length."""
    return " ".join(str(error).split())[:MAX_REASON_CHARACTERS] or type(error).__name__
