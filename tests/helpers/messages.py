"""Messages of errors, compared as a whole."""


def is_message(error: BaseException, expected: str) -> bool:
    """Returns whether an error has a message. Where `expected` ends with ": ", a library's own reason follows it."""
    found = str(error)
    return found.startswith(expected) if expected.endswith(": ") else found == expected
