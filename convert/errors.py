"""The one error of conversions, and how messages quote what a file holds."""

import json
import re
import reprlib
from collections.abc import Sequence

from nemojax.errors import NemojaxError, shown

MAX_LISTED = 8  # problems that one message names; further ones are counted
MAX_REASON_CHARACTERS = 200
MAX_MESSAGE = 1800  # characters
# a text that stays a text without quotes: no number, null, true or false, no space at an end
PLAIN_TEXT = re.compile(r"(?!(?i:null|true|false|yes|no|on|off)$)[^\W\d](.*\S)?|[/$].*\S", re.DOTALL)


class ConvertError(NemojaxError, ValueError):
    """Reports a checkpoint that can't be converted; the message says what is wrong and where, on one line."""

    def __init__(self, message: str):
        super().__init__(shown(message, MAX_MESSAGE))  # it may quote names of files and texts in them


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 80, 80, 40


def short(value: object) -> str:
    """Returns a value from a file for a message: one line, however large or deeply nested the value is."""
    return shown(_short.repr(value))


def as_written(value: object) -> str:
    """Returns a value as a settings file writes it, for a message; a text that looks like another type has quotes."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return short(value) if isinstance(value, str) and not PLAIN_TEXT.fullmatch(value) else short(value).strip("'")


def listed(problems: Sequence[str], separator: str = "; ") -> str:
    """Joins problems into one clause after another; names the first eight and counts the rest."""
    more = f"{separator}and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return separator.join(problems[:MAX_LISTED]) + more


def reason(error: BaseException) -> str:
    """Returns the message of a library's error as one line of limited length."""
    return shown(" ".join(str(error).split())[:MAX_REASON_CHARACTERS]) or type(error).__name__
