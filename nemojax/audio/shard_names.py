"""Names of several manifests at once, as settings of NeMo have them: `manifest_{0..3}.json`."""

import os
import re
from pathlib import Path

from nemojax.errors import AudioError

# NeMo writes a range in braces, in other brackets, or as _OP_0..3_CL_, which no shell changes.
RANGE = re.compile(r"(?:_OP_|[{(\[<])(\d{1,6})\.\.(\d{1,6})(?:_CL_|[})\]>])")
MAX_MANIFESTS = 10_000


def manifest_paths(name: str | Path) -> list[Path]:
    """Returns the paths that a name stands for: one for each number of its range, or the name itself without a range.

    Numbers have leading zeros where the first of the range has them.

    Raises:
      AudioError: the name stands for more than MAX_MANIFESTS.
    """
    text = str(name)
    if RANGE.search(text) is None or os.path.exists(text):
        return [Path(name)]
    names = [text]
    while match := RANGE.search(names[0]):
        first, last = int(match[1]), int(match[2])
        width = len(match[1]) if match[1].startswith("0") else 0
        if (last - first + 1) * len(names) > MAX_MANIFESTS:
            raise AudioError(f"{name}: the name stands for more than {MAX_MANIFESTS} manifests")
        numbers = [f"{number:0{width}}" for number in range(first, last + 1)]
        names = [RANGE.sub(number, each, count=1) for each in names for number in numbers]
        if not names:
            return [Path(name)]
    return [Path(each) for each in names]
