"""Messages of errors, compared as a whole."""

import re


def whole(message: str) -> str:
    """Returns the pattern for `match` of this message and no other."""
    return f"^{re.escape(message)}$"


def ending(message: str) -> str:
    """Returns the pattern for `match` of messages that end like this, after the path of a temporary file."""
    return f"{re.escape(message)}$"


def is_message(error: BaseException, expected: str) -> bool:
    """Returns whether an error has a message. Where `expected` ends with ": ", a library's own reason follows it."""
    found = str(error)
    return found.startswith(expected) if expected.endswith(": ") else found == expected
