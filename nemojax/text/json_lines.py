"""JSON lines that can be written in any encoding."""

import json
from collections.abc import Mapping
from typing import Any


def json_line(fields: Mapping[str, Any], encoding: str = "utf-8") -> str:
    """Returns an object as one line of JSON, with its characters as they are where the encoding has them all.

    Else every character that is not ASCII is escaped: half of a surrogate pair, for example, which stands for a byte of
    a file's name that is not UTF-8.
    """
    line = json.dumps(fields, ensure_ascii=False)
    try:
        line.encode(encoding)
        return line
    except (UnicodeEncodeError, LookupError):
        return json.dumps(fields)
