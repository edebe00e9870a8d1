"""Names of settings in messages, replaced by the flags that set them."""

import dataclasses
import re
import typing
from collections import Counter
from collections.abc import Iterator
from typing import Any

# A name within a sentence has an underscore or a dot, unless the sentence begins with it: "steps must be at least 1".
NAME = re.compile(r"^[a-z_]+(?= must| needs|:)|(?<![\w./'\"-])[a-z]+(?:[._][a-z]+)+(?![\w/'\"-])")


def with_flags(message: str, kind: type) -> str:
    """Returns a message in which each setting of a dataclass is named by its flag.

    A name that several settings share stays as it is.

    Args:
      kind: the dataclass of the command's settings.
    """
    paths = list(_paths(kind))
    endings = Counter(".".join(path[start:]) for path in paths for start in range(len(path)))
    flags = {
        ending: "--" + ".".join(path).replace("_", "-")
        for path in paths
        for start in range(len(path))
        if endings[ending := ".".join(path[start:])] == 1
    }
    return NAME.sub(lambda found: flags.get(found[0], found[0]), message)


def _paths(kind: type) -> Iterator[tuple[str, ...]]:
    """Yields the path of each setting, through the groups that it is in."""
    hints: dict[str, Any] = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        group = hints[field.name]
        if dataclasses.is_dataclass(group) and isinstance(group, type):
            yield from ((field.name, *rest) for rest in _paths(group))
        else:
            yield (field.name,)
